"""What dry_run=true says of length, time, budget and memory before anything is queued."""

from __future__ import annotations

import pytest

from conf import compose
from conf.schema.cluster import ClusterConfig, SiteConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner import length
from elm_megatron.planner.devices import device
from elm_megatron.planner.inputs import layout_of, shape_of
from elm_megatron.planner.performance import step_time
from slurm.jobs import dry_run, price

ON_CPUS = ["cluster=snellius", "cluster.device=cpu", "cluster.gpus_per_node=0", "cluster.partition=genoa"]


def config_of(*argv: str) -> PretrainConfig:
    found: list[PretrainConfig] = []
    compose.run("pretrain", PretrainConfig, lambda config: found.append(config), argv)
    return found[0]


def told(text: str, label: str) -> str:
    """What stands behind a label."""
    return next(line.removeprefix(label).strip() for line in text.splitlines() if line.startswith(label))


def test_time_and_budget_are_those_of_the_site() -> None:
    config = config_of(
        "model=large", "cluster=snellius", "cluster.nodes=2", "train.steps=1000", "train.epochs=null"
    )
    guess = length.estimate(config)
    tokens = 1000 * config.train.global_batch_size * config.train.seq_length
    assert (guess.steps, guess.tokens) == (1000, tokens)
    sheet = device("h100_94")
    step = step_time(shape_of(config.model), layout_of(config), sheet).total
    assert guess.hours == pytest.approx(1000 * step / 3600)
    flops = tokens * config.model.flops_per_token(config.train.seq_length)
    assert 0.30 < flops / (8 * 989e12) / (guess.hours * 3600) < 0.45
    assert dry_run.budget(guess, config) == pytest.approx(guess.hours * 8 * 192)


def test_more_nodes_cost_more() -> None:
    units = [
        dry_run.budget(length.estimate(config), config)
        for config in (
            config_of("model=large", "cluster=snellius", f"cluster.nodes={n}", "train.micro_batch_size=8")
            for n in (1, 8)
        )
    ]
    assert units[1] > 1.02 * units[0]


@pytest.mark.parametrize(
    ("keys", "per_hour"),
    [
        ([], 192),  # a quarter of a node's GPUs, and the cores and memory that go with them
        (["cluster.exclusive=true"], 768),
        (["cluster.memory_gb=720"], 768),
        (["cluster.cpus_per_task=32"], 384),
        (["cluster.cpus_per_task=32", "cluster.nodes=2"], 768),
    ],
)
def test_the_budget_is_that_of_the_largest_share_asked_for(keys: list[str], per_hour: float) -> None:
    config = config_of("model=large", "cluster=snellius", "cluster.gpus_per_node=1", *keys)
    guess = length.estimate(config)
    assert dry_run.budget(guess, config) == pytest.approx(guess.hours * per_hour)


def test_a_job_on_cpu_nodes_pays_their_rate() -> None:
    cluster = config_of("cluster=snellius").cluster.without_gpus()
    cluster.site.core_hour_rate = 1
    cluster.cpus_per_task, cluster.memory_gb = 4, 100
    assert price.per_hour(cluster, 8) == 32
    cluster.exclusive = True
    assert price.per_hour(cluster, 8) is None, "nobody says how many cores such a node has"


def test_cores_are_not_priced_by_the_rate_of_gpu_nodes() -> None:
    assert price.per_hour(config_of(*ON_CPUS).cluster, 1) is None, "nobody says what genoa costs"
    assert price.per_hour(config_of(*ON_CPUS, "cluster.partition=rome").cluster, 1) == 1
    assert price.per_hour(config_of(*ON_CPUS, "cluster.exclusive=true").cluster, 1) == 768
    cores_only = SiteConfig(cores=64, core_hour_rate=1)
    assert price.per_hour(ClusterConfig(executor="slurm", cpus_per_task=8, site=cores_only), 2) == 16


@pytest.mark.parametrize(
    ("keys", "time", "budget"),
    [
        (["cluster=snellius", "train.precision=fp32"], "about", "cluster=snellius names no rate"),
        (["cluster=local"], "s a step on a rank on this machine", "cluster=local names no rate"),
        (["cluster=dev"], "cluster=dev names no peak_tflops", "the hours are not"),
        (
            [*ON_CPUS, "train.precision=bf16"],
            "peak_tflops is that of a GPU, and this is cluster.device=cpu",
            "the hours are not",
        ),
        (["cluster=snellius", "train.precision=bf16"], "about", "cluster=snellius names no rate"),
    ],
)
def test_what_cannot_be_estimated_is_said(
    keys: list[str], time: str, budget: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    built = {"parameters": 1, "kernels": "torch: all", "kernel_notes": []}
    monkeypatch.setattr(dry_run, "preflight", lambda _: built)
    config = config_of(*keys)
    config.cluster.site.gpu_hour_rate = config.cluster.site.core_hour_rate = None
    assert dry_run.show(config) == 0
    out = capsys.readouterr().out
    assert time in told(out, "time") and budget in told(out, "budget")


def test_a_rank_that_does_not_fit_is_said_with_what_to_do(capsys: pytest.CaptureFixture) -> None:
    keys = [
        "model=large",
        "cluster=snellius_a100",
        "train.micro_batch_size=64",
        "train.steps=10",
        "train.epochs=null",
    ]
    assert dry_run.show(config_of(*keys)) == 0
    out = capsys.readouterr().out
    assert "of 40 GiB per GPU; IT DOES NOT FIT: raise parallel.tp" in told(out, "memory")
    for part in ("CUDA context", "NCCL", "workspaces", "output layer", "Transformer Engine's cross entropy"):
        assert part in told(out, "memory")
    assert told(out, "kernels").startswith("expected: ") and "attention" in told(out, "kernels")
    assert told(out, "batch") == "256 sequences = dp=4 × 1 micro-batches of 64"
    assert "#SBATCH --partition=gpu_a100" in out.split("\nscript\n")[1]
