"""A plan: what fits is ranked, what does not is named with its largest part, and nonsense is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conf import compose
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig, SiteConfig
from conf.schema.plan import PlanConfig
from elm_megatron.planner import layout, measured, memory
from elm_megatron.planner.command import plan_command
from elm_megatron.planner.length import estimate
from elm_megatron.planner.plan import frontier, plan
from slurm.jobs.price import per_hour

ROOT = Path(__file__).parents[3]
TOKENS = 1_200_000_000


def asked(*keys: str) -> PlanConfig:
    """A composed plan for the large model on Snellius."""
    found: list[PlanConfig] = []
    compose.run("plan", PlanConfig, found.append, ["model=large", "cluster=snellius", *keys])
    return found[0]


def rate(config: object) -> float | None:
    """As the launcher prices a job."""
    return per_hour(config.cluster, config.world_size)


def test_rows_fit_are_ranked_and_cost_more_on_more_nodes() -> None:
    config = asked().pretraining()
    rows, rejected = plan(config, [1, 8], TOKENS, rate)
    capacity = config.cluster.site.gpu_memory_gb * 2**30 * layout.USABLE
    assert all(sum(row.memory.values()) <= capacity for row in rows)
    assert all(sum(one.memory.values()) > capacity for one in rejected) and rejected
    assert [row.hours for row in rows] == sorted(row.hours for row in rows)
    best = {nodes: min(r.budget for r in rows if r.config.cluster.nodes == nodes) for nodes in (1, 8)}
    assert best[8] > 1.05 * best[1]
    edge = frontier(rows)
    assert [row.budget for row in edge] == sorted((row.budget for row in edge), reverse=True)
    for row in rows[:20]:
        assert row.step.total == pytest.approx(row.hours * 3600 / row.steps)
        assert row.jobs == 1 and row.footprint.kwh > 0


def test_without_prices_the_cheapest_takes_least_energy() -> None:
    rows, _ = plan(asked().pretraining(), [1, 8], TOKENS, lambda config: None)
    edge = frontier(rows)
    assert len(edge) > 1 and edge[0] is rows[0]
    assert edge[-1].footprint.kwh == min(row.footprint.kwh for row in rows)


def test_a_peak_alone_still_gives_hours() -> None:
    """As before the device sheets: a site's YAML may name peak_tflops and no GPU."""
    config = asked("nodes=[1]").pretraining()
    site = replace(config.cluster.site, gpu_model=None, gpu_memory_gb=None)
    config = replace(config, cluster=replace(config.cluster, site=site))
    found = estimate(config)
    flops = config.model.flops_per_token(config.train.seq_length) * found.tokens
    per_second = config.world_size * site.peak_tflops * 1e12 * site.mfu
    assert found.hours == pytest.approx(flops / per_second / 3600)
    assert found.how == f"at {site.mfu:.0%} of {site.peak_tflops:g} TFLOP/s a GPU"


def test_memory_is_that_of_the_layout_choice() -> None:
    config = asked().pretraining()
    rows, _ = plan(config, [2], TOKENS, rate)
    for row in rows[::40]:
        needed = layout.rank_bytes(row.config, row.config.parallel)
        assert sum(memory.rank_parts(row.config).values()) == pytest.approx(needed, rel=1e-6)


SITES = {  # of other places
    "amd": ({"gpu_model": "mi250x"}, 8, "not on mi250x"),
    "slices": ({"peak_tflops": 141, "gpu_memory_gb": 10}, 4, "a device like "),
    "cheap": ({"gpu_model": "l40s", "gpu_watts": 300}, 1, "kg CO2"),
}


@pytest.mark.parametrize("name", SITES)
def test_a_site_of_another_kind_has_a_plan(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """No prices, devices without a published run, slices of a GPU."""
    site, gpus, words = SITES[name]
    config = asked("model=small", f"run.dir={tmp_path}/plan", "nodes=[1,1]", "each=1")
    config.cluster = ClusterConfig(name, "slurm", "gpu", gpus_per_node=gpus, site=SiteConfig(**site))
    assert plan_command(config, rate) == 0
    out = capsys.readouterr().out
    assert words in out and out.count("fastest:") == 1


def test_a_cpu_cluster_has_a_plan_for_the_cores_that_it_asks_for() -> None:
    config = asked("model=small", "nodes=[1]").pretraining()
    site = SiteConfig(cores=128, memory_gb=256, peak_tflops=5.0)
    one = ClusterConfig("cpus", "slurm", tasks_per_node=8, site=site)
    config.cluster = one
    few = plan(config, [1], TOKENS, rate)[0][0]
    config.cluster = replace(one, cpus_per_task=16)
    all_ = plan(config, [1], TOKENS, rate)[0][0]
    assert few.hours > 5 * all_.hours
    assert all_.footprint.device_hours == pytest.approx(128 * all_.hours)
    assert all_.mfu <= site.mfu


def test_nodes_of_the_cluster_are_looked_at() -> None:
    assert asked("cluster.nodes=3").node_counts() == [3]
    assert asked("cluster.nodes=3", "nodes=[4,1,4]").node_counts() == [1, 4]


def test_what_does_not_fit_names_its_part() -> None:
    config = asked("cluster=snellius_a100", "train.global_batch_size=512").pretraining()
    _, rejected = plan(config, [1], TOKENS, rate)
    (whole,) = [one for one in rejected if one.name == "1×4 dp=4 mb=32"]
    assert whole.largest == "activations"


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = asked(f"run.dir={tmp_path}/plan", "nodes=[1,2]")
    assert plan_command(config, rate) == 0
    out = capsys.readouterr().out
    for words in (
        "902,891,520 parameters",
        "1×4 dp=4",
        "SBU",
        "kg CO2",
        "fastest:",
        "do not fit",
        "PUE 1.19",
    ):
        assert words in out
    data = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert data["rows"][0]["hours"] <= data["rows"][-1]["hours"] and data["rejected"]
    assert (tmp_path / "plan" / "plan.png").read_bytes()[:4] == b"\x89PNG"
    assert "1×4 dp=4" in (tmp_path / "plan" / "plan.md").read_text()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["nodes=[0]"], "nodes=0: must be at least 1"),
        (["nodes=[]"], "nodes=[]: give at least one number of nodes"),
        (["budget=-5"], "budget=-5"),
        (["model.num_layers=0"], "model.num_layers=0: must be at least 1"),
        (["budget=10"], "the cheapest costs"),
        (["hours=0.01"], "the fastest of"),
        (["cluster=dev"], "cluster=dev: its YAML names no GPU"),
        (
            ["train.seq_length=2047", "nodes=[3]", "train.global_batch_size=1"],
            "no layout of large is possible on 3 nodes",
        ),
        (["compare=nowhere"], "compare=nowhere"),
        (["compare="], "compare=: give a run's name"),
        (["calibrate="], "calibrate=: give a run's name"),
    ],
)
def test_nonsense_is_one_sentence(keys: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_command(asked(*keys), rate)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_is_compared_and_corrects_later_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    config = asked("run.name=measured").pretraining()
    run = Path("runs/measured")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(compose.as_yaml(config))
    before = plan(config, [1], TOKENS, rate)[0]
    step = 2 * next(row.step.total for row in before if row.name == "1×4 dp=4 mb=4")
    rows = [{"step": n, "step_seconds": step, "mfu": 0.18, "memory_bytes": 17 << 30} for n in range(1, 11)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"schema": 1, "seconds": 10 * step, "kwh": 0.5, "energy_method": "NVML, GPU", "world_size": 4}
    (run / "run.json").write_text(json.dumps(record))
    figures = {one.name: one for one in measured.figures("measured")}
    assert figures["step"].error == pytest.approx(-0.5)
    assert figures["memory"].error == pytest.approx(0, abs=0.02)
    hosts = 4 * 0.2 * 10 * step / 3600
    assert figures["energy"].recorded == pytest.approx((0.5 + hosts) * 1.19)
    assert figures["hours"].error == figures["device-hours"].error == pytest.approx(-0.5)
    assert figures["CO2"].recorded == pytest.approx(0.268 * figures["energy"].recorded)
    assert measured.calibrate("measured") == pytest.approx(2.0)
    assert figures["step"].predicted * 2 == pytest.approx(measured.figures("measured")[0].predicted)
    plan_command(asked("nodes=[1]"), rate)
    assert "corrected by run measured: 2.00 times" in capsys.readouterr().out


def test_it_answers_in_three_seconds_of_work(tmp_path: Path) -> None:
    import resource

    command = [sys.executable, str(ROOT / "launch" / "plan.py"), "model=large", "cluster=snellius"]
    used = []
    while len(used) < 3 and not (used and used[-1] < 3.5):  # the best of three on a busy machine
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, f"run.dir={tmp_path}/plan"], cwd=tmp_path, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used) < 3.5, used
