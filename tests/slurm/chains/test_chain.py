"""Which stages of a chain are skipped, and what one that fails or is refused does to the others. No torch."""

from __future__ import annotations

import dataclasses
import getpass
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf import compose
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from conf.schema.pipeline import PipelineConfig
from conf.schema.run import RunConfig
from elm_megatron.run.folder import RunFolder
from slurm.chains import chain, chain_report
from slurm.chains.stages import stages
from slurm.chains.sweep import Sweep
from slurm.devcluster.cluster import DevCluster
from slurm.jobs.submit import Submission
from tests.slurm.accounting import final_states

JOBS = Path(__file__).parents[1] / "jobs"  # of stepping.py


def pipeline(*argv: str) -> PipelineConfig:
    found: list[PipelineConfig] = []
    compose.run("pipeline", PipelineConfig, lambda one: found.append(one), ["experiment=quickstart", *argv])
    return found[0]


def saved(path: Path, when: float, **record: object) -> RunFolder:
    run = RunFolder(path)
    run.checkpoints.mkdir(parents=True)
    run.latest.write_text("step-00000001")
    os.utime(run.latest, (when, when))
    run.update(**record)
    return run


def test_stages_share_one_configuration() -> None:
    config = pipeline("corpus.path=/works", "train.steps=7", "parallel.tp=1")
    assert config.run.name == "quickstart-tiny-works"
    assert config.preprocessing().corpus.path == "/works" and config.preprocessing().data.dir == "data/works"
    assert (
        config.pretraining().train.steps == 7
        and config.pretraining().run.name == "quickstart-tiny-works-pretrain"
    )
    assert config.tuning().source == config.pretraining().run.dir == "runs/quickstart-tiny-works-pretrain"
    assert config.exporting().source == config.tuning().run.dir
    assert config.measuring().source == config.exporting().run.dir


def test_an_output_older_than_its_source_is_made_again(tmp_path: Path) -> None:
    now = time.time()
    base = saved(tmp_path / "base", now - 100, state="done")
    assert chain.done_since(saved(tmp_path / "a", now, state="done", submitted=now - 50), base)
    assert not chain.done_since(saved(tmp_path / "b", now, state="done", submitted=now - 150), base)
    assert not chain.done_since(saved(tmp_path / "c", now, state="failed", submitted=now - 50), base)
    queued = [{"job": "1", "restart": 0, "step": 0, "time": now - 50}]  # began after the base had ended
    assert chain.done_since(saved(tmp_path / "d", now, state="done", submitted=now - 150, lives=queued), base)


def test_a_finished_run_is_not_taken_for_the_output_of_changed_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    base = saved(tmp_path / "base", now, state="done")
    stage = stepping_stages(tmp_path, monkeypatch)[0]
    stage.sources = (base,)
    stage.check_fresh(changing=True)  # it has not run yet
    saved(tmp_path / "one", now, state="done", submitted=now - 50)
    with pytest.raises(InputError, match=r"one is finished, and what it was made from has changed"):
        stage.check_fresh(changing=False)
    stage.run.update(submitted=now + 50)
    stage.check_fresh(changing=False)
    with pytest.raises(InputError, match=r"made from changes: give another run\.name"):
        stage.check_fresh(changing=True)


def stepping_stages(folder: Path, monkeypatch: pytest.MonkeyPatch, **trouble: str) -> list[chain.Stage]:
    """Three stages of a few quick steps each; `trouble` says what befalls the stage of that name."""
    monkeypatch.syspath_prepend(str(JOBS))
    stepping = sys.modules.get("stepping") or __import__("stepping")
    cluster = ClusterConfig(name="dev", executor="slurm", partition="low", time="5", signal_seconds=20)
    cluster.env = {"PYTHONPATH": str(JOBS)}
    made = []
    for verb in ("one", "two", "three"):
        run = RunFolder(folder / verb)
        config = stepping.Config(RunConfig(verb, str(run.path)), dataclasses.replace(cluster))
        job = stepping.Stepping(str(run.path), 3, trouble=trouble.get(verb, ""))
        made.append(
            chain.Stage(verb, config, job, 1, "in", "out", run.latest,
                        finished=lambda run=run: chain.done_since(run))
        )  # fmt: skip
    return made


def test_here_a_stage_is_skipped_while_its_source_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(JOBS))
    one, two, _ = stepping_stages(tmp_path, monkeypatch)
    for stage in (one, two):
        stage.config.cluster = ClusterConfig()
    two.sources, two.finished = (one.run,), lambda: chain.done_since(two.run, one.run)
    status, rows = chain.run_here([one, two])
    assert status == 0 and [row.reused for row in rows] == [False, False]
    status, rows = chain.run_here([one, two])
    assert status == 0 and [row.reused for row in rows] == [True, True]
    later = time.time() + 60
    os.utime(one.run.latest, (later, later))
    with pytest.raises(InputError, match=r"two is finished, and what it was made from has changed"):
        chain.run_here([one, two])


def test_what_a_late_stage_refuses_is_said_before_the_first_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stepping_stages(tmp_path, monkeypatch)
    made[2].config.run.name = "a b"
    monkeypatch.setattr(Submission, "start", lambda *_: pytest.fail("queued"))
    with pytest.raises(InputError, match=r"run\.name=a b"):
        chain.queue(made, Sweep())
    assert list(tmp_path.iterdir()) == []


def test_a_held_stage_stops_the_chain_and_takes_back_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    commands = {
        "sbatch": "echo Submitted batch job 8",
        "squeue": f"echo '7|PENDING|2099-01-01T00:00:00|JobHeldUser|two|elm:{tmp_path}/two'",
        "scancel": ":",
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    made = stepping_stages(tmp_path, monkeypatch)
    made[1].run.create()
    made[1].run.update(state="held", reason="no new checkpoint", executor="slurm", job_ids=["7"])
    with pytest.raises(InputError, match=r"two is held: no new checkpoint; scontrol release 7"):
        chain.queue(made, Sweep())
    assert "one: job 8 cancelled again" in capsys.readouterr().err and not made[2].run.path.exists()


def test_every_stage_of_a_pipeline_on_several_nodes_has_a_script() -> None:
    keys = ["cluster=snellius", "cluster.nodes=2", "parallel.tp=1", "train.micro_batch_size=2"]
    planned = stages(pipeline(*keys, "tune.micro_batch_size=1"))
    assert planned[-1].verb == "eval"
    chain.check_scripts(planned)


def states(cluster: DevCluster, links: list[chain.Link]) -> list[str]:
    """How the jobs ended, once all have."""
    return [final_states(cluster, link.job or "")[-1] for link in links]


def test_a_stage_that_fails_cancels_those_behind_it(
    devcluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    links = chain.queue(stepping_stages(tmp_path, monkeypatch, two="raise on 0"), Sweep())
    assert [link.waits for link in links] == [None, f"afterok:{links[0].job}", f"afterok:{links[1].job}"]
    assert states(devcluster, links) == ["COMPLETED", "FAILED", "CANCELLED"]
    again = stepping_stages(tmp_path, monkeypatch)
    links = chain.queue(again, Sweep())
    assert [link.job is None for link in links] == [True, False, False]
    assert states(devcluster, links[1:]) == ["COMPLETED"] * 2
    capsys.readouterr()
    assert chain_report.show_queue(chain.queue(again, Sweep())) == 0
    assert capsys.readouterr().out.count("there already, and valid") == 3


def test_a_stage_that_slurm_refuses_takes_back_those_before_it(
    devcluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stepping_stages(tmp_path, monkeypatch)
    made[0].config.cluster.dependency = "afterany:1"
    made[2].config.cluster.partition = "nowhere"
    with pytest.raises(InputError, match="sbatch refused the job"):
        chain.queue(made, Sweep())
    jobs = [stage.run.read()["job_ids"][-1] for stage in made[:2]]
    found = [chain.Link(stage, job, None) for stage, job in zip(made, jobs, strict=False)]
    assert states(devcluster, found) == ["CANCELLED"] * 2
    assert [link.state() for link in found] == ["cancelled"] * 2 and not made[2].run.path.exists()


def limit(cluster: DevCluster, jobs: int) -> None:
    """Let the test's user have so many jobs in the queue; -1 is no limit."""
    cluster.command("sacctmgr", "-i", "modify", "user", getpass.getuser(), "set", f"MaxSubmitJobs={jobs}")


@pytest.fixture
def two_jobs(devcluster: DevCluster) -> Iterator[DevCluster]:
    """The dev cluster takes two jobs of a user at a time."""
    limit(devcluster, 2)
    yield devcluster
    limit(devcluster, -1)


def test_a_chain_that_meets_the_submit_limit_is_completed_by_the_same_command(
    two_jobs: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stepping_stages(tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"SubmitJob.*Not handed in: three\. What Slurm has stays"):
        chain.queue(made, Sweep())
    jobs = [stage.run.read()["job_ids"][-1] for stage in made[:2]]
    assert [final_states(two_jobs, job) for job in jobs] == [["COMPLETED"]] * 2
    links = chain.queue(stepping_stages(tmp_path, monkeypatch), Sweep())
    assert [link.job is None for link in links] == [True, True, False]
    assert states(two_jobs, links[2:]) == ["COMPLETED"]


def test_a_sweep_that_meets_the_submit_limit_is_completed_by_the_same_command(
    two_jobs: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        sweep, made = Sweep(), stepping_stages(tmp_path, monkeypatch)
        sweep.names = [stage.config.run.name for stage in made]
        for stage in made:
            sweep.submit(stage.job, stage.config, 1, stage.verb)

    with pytest.raises(InputError, match="Not handed in: three"):
        start()
    runs = [RunFolder(tmp_path / name) for name in ("one", "two", "three")]
    for run in runs[:2]:
        assert final_states(two_jobs, run.read()["job_ids"][-1]) == ["COMPLETED"]
    start()
    assert final_states(two_jobs, runs[2].read()["job_ids"][-1]) == ["COMPLETED"]
    assert all(len(run.read()["job_ids"]) == 1 for run in runs)
