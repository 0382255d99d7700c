"""Who starts the evaluation of checkpoints: a launcher here, hand_in.sh on Slurm. No torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf.plain import plain
from conf.schema.cluster import ClusterConfig, SiteConfig
from conf.schema.evaluation import CheckpointEvaluation
from elm_megatron.run import evaluations as places
from elm_megatron.run.folder import RunFolder
from slurm.devcluster.cluster import DevCluster
from slurm.jobs import evaluations
from slurm.jobs.local import StopRequest
from tests.elm_megatron.checkpoint.saved_steps import saved
from tests.slurm.jobs.test_training_on_slurm import launch, metrics, on_slurm, wait_done

SMALL = ["train.seq_length=64", "train.global_batch_size=4", "train.micro_batch_size=4"]
HAND_IN = Path(evaluations.__file__).with_name("hand_in.sh")
STUB = """
import os, signal, sys, time
from pathlib import Path
run, step = Path(sys.argv[1]), int(sys.argv[2])
with (run / "started").open("a") as log:
    log.write(f"{step} {os.environ['OMP_NUM_THREADS']} {os.environ['CUDA_VISIBLE_DEVICES']!r}\\n")
if step == 2:
    os.kill(os.getpid(), signal.SIGKILL)  # as a kernel without memory does
(run / "evaluations").mkdir(exist_ok=True)
(run / "evaluations" / f"step-{step:08d}.json").write_text(f'{{"step": {step}}}')
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with three checkpoints, whose evaluation takes no time; that of step 2 is killed."""
    found = RunFolder(tmp_path / "run")
    found.create()
    for step in (1, 2, 3):
        saved(found, step)
    (tmp_path / "stub_of_evaluation.py").write_text(STUB)
    monkeypatch.setattr(evaluations, "MODULE", "stub_of_evaluation")
    monkeypatch.setattr(evaluations, "_path", lambda env: str(tmp_path))
    return found


def test_each_checkpoint_is_evaluated_once_and_a_death_is_no_endless_loop(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluating = evaluations.LocalEvaluations(run, dict(os.environ))
    evaluating.looked = 0.0
    evaluating.poll()
    evaluating.poll()  # too early to look again
    assert evaluating.finish(StopRequest()) == 0
    started = (run.path / "started").read_text().splitlines()
    assert [line.split()[0] for line in started] == ["1", "2", "3"]
    assert started[0] == "1 1 ''"  # beside the ranks with one thread
    assert [row["step"] for row in places.results(run)] == [1, 3]
    assert "step 2 could not be evaluated: exit status -9" in capsys.readouterr().err
    assert evaluations.LocalEvaluations(run, dict(os.environ)).finish(StopRequest()) == 0
    assert len((run.path / "started").read_text().splitlines()) == 3


def test_a_signal_ends_the_wait(run: RunFolder) -> None:
    stop = StopRequest()
    stop.receive(2)
    evaluating = evaluations.LocalEvaluations(run, dict(os.environ))
    assert evaluating.finish(stop) == 130
    assert evaluating.process is None and len(places.due(run)) > 1


def test_nothing_happens_where_none_is_asked(run: RunFolder) -> None:
    evaluating = evaluations.LocalEvaluations(run, dict(os.environ), wanted=False)
    evaluating.looked = 0.0
    evaluating.poll()
    assert evaluating.finish(StopRequest()) == 0 and not (run.path / "started").exists()


def hand_in(run: RunFolder, bin_folder: Path, *words: str) -> list[str]:
    env = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CONF": "/c"}
    command = ["bash", str(HAND_IN), str(places.folder(run)), *words]
    subprocess.run(command, env=env, check=True)
    calls = bin_folder / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


def test_hand_in_asks_slurm_once_for_each_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a run")
    run.create()
    for step in (8, 9, 10):
        saved(run, step)
    (run.checkpoints / "step-00000010-keep").mkdir()
    (run.checkpoints / "step-00000010-keep" / "manifest.json").touch()
    folder = places.folder(run)
    folder.mkdir()
    (folder / "step-00000009.json").write_text("{}")
    tools = tmp_path / "bin"
    tools.mkdir()
    sbatch = '#!/bin/bash\necho "$(basename "$2") $3 ${SLURM_JOB_ID-none} $SLURM_CONF" >> "${0%/*}/calls"\n'
    (tools / "sbatch").write_text(f"{sbatch}echo 4{'{'}3{'}'}1;cluster\n".replace("4{3}1", "41"))
    (tools / "squeue").write_text('#!/bin/bash\ncat "${0%/*}/queue" 2> /dev/null\n')
    for tool in tools.iterdir():
        tool.chmod(0o700)
    assert hand_in(run, tools) == ["job.sh 8 none /c", "job.sh 10 none /c"]
    assert (folder / "step-00000008.job").read_text() == "41\n"
    assert len(hand_in(run, tools)) == 2
    (tools / "queue").write_text("41\n")
    assert len(hand_in(run, tools, "again")) == 2  # Slurm has them still
    (tools / "queue").unlink()
    (folder / "step-00000010.failed").write_text("no documents")
    assert hand_in(run, tools, "again")[2:] == ["job.sh 8 none /c"]


def test_the_job_of_an_evaluation_asks_for_one_gpu_or_for_cores(tmp_path: Path) -> None:
    site = SiteConfig(gpus=4, cores=64, memory_gb=720)
    cluster = ClusterConfig(
        "snellius", "slurm", "gpu", nodes=8, gpus_per_node=4, time="12:00:00", site=site, partition="gpu"
    )
    code, folder = Path("/runs/.code/1"), tmp_path / "evaluations"

    def text(**settings: str) -> str:
        asked = {"eval": plain(CheckpointEvaluation(True, **settings))}
        return evaluations.script(folder, "pretrain", asked, cluster, "python", code)

    on_gpu, on_cpu = text(), text(device="cpu", time="1:00:00")
    assert "--gpus-per-node=1\n" in on_gpu and "--nodes=1\n" in on_gpu and "--time=12:00:00" in on_gpu
    assert f'-m slurm.jobs.evaluations {tmp_path} "$1" --device gpu' in on_gpu
    assert "gpus-per-node" not in on_cpu and "--time=1:00:00" in on_cpu and "--mem=16G" in on_cpu
    assert "requeuehold" not in on_gpu and f"--comment=elm:{folder}" in on_gpu


@pytest.mark.slow
def test_killed_and_resumed_here(tmp_path: Path) -> None:
    """A launcher that is killed takes its evaluation along; the same command again makes what is missing."""
    launch("preprocess", tmp_path)
    script = str(Path(evaluations.__file__).parents[2] / "launch/pretrain.py")
    keys = ["train.steps=40", "train.save_every=10", "train.keep_last=1", "parallel.tp=2", *SMALL]
    keys += ["eval.every_checkpoint=true", "eval.limit=2", "run.name=here"]
    first = subprocess.Popen([sys.executable, script, *keys], cwd=tmp_path, stdout=subprocess.DEVNULL)
    run = RunFolder(tmp_path / "runs/here")
    until = time.monotonic() + 300
    while not places.results(run) or not list(places.folder(run).glob("*.running")):
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    first.kill()
    first.wait()
    before = {path: path.read_bytes() for path in places.folder(run).glob("*.json")}
    until = time.monotonic() + 60
    while "slurm.jobs.evaluations" in processes():
        assert time.monotonic() < until
        time.sleep(0.2)
    launch("pretrain", tmp_path, *keys)
    assert [row["step"] for row in places.results(run)] == [10, 20, 30, 40]
    assert all(path.read_bytes() == text for path, text in before.items())
    assert [folder.name for folder in run.checkpoints.glob("step-*")].count("step-00000040") == 1
    assert "bits per byte, language nl" in (run.path / "report.html").read_text(encoding="utf-8")
    assert list((run.tensorboard / "evaluations").glob("events*"))
    (places.folder(run) / "step-00000040.json").unlink()
    assert "evaluating the checkpoints of steps 40" in launch("pretrain", tmp_path, *keys)


def processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_on_slurm(devcluster: DevCluster, tmp_path: Path) -> None:
    """A job for each checkpoint, of a pretraining that is requeued and of a tuning; each has its figures."""
    launch("preprocess", tmp_path)
    keys = ["eval.every_checkpoint=true", "eval.limit=2", *on_slurm()]
    long = ["train.steps=60", "train.save_every=20", "train.keep_last=1", "cluster.nodes=2", *SMALL]
    launch("pretrain", tmp_path, *long, *keys, "parallel.tp=2", "run.name=base")
    run = RunFolder(tmp_path / "runs/base")
    until = time.monotonic() + 300
    while not run.metrics.exists() or len(metrics(run.path)) < 25:
        assert time.monotonic() < until
        time.sleep(0.2)
    devcluster.command("scancel", "-s", "USR2", run.read()["job_ids"][0])
    wait_done(run.path)
    measured(run, [20, 40, 60])
    assert len(run.read()["lives"]) == 2
    jobs = [path.read_text().strip() for path in places.folder(run).glob("*.job")]
    assert len(set(jobs)) == len(jobs) >= 3
    tuned = ["source=base", "tune.steps=4", "tune.save_every=2", "tune.keep_last=1"]
    launch("finetune", tmp_path, *tuned, *keys, "run.name=tuned")
    wait_done(tmp_path / "runs/tuned")
    measured(RunFolder(tmp_path / "runs/tuned"), [2, 4])


def measured(run: RunFolder, steps: list[int]) -> None:
    """Wait until these steps have figures, and no others."""
    until = time.monotonic() + 300
    while not set(steps) <= {row["step"] for row in places.results(run)}:
        logs = [path.read_text() for path in (places.folder(run) / "logs").glob("*.err")]
        assert time.monotonic() < until and not places.failures(run), (places.failures(run), logs)
        time.sleep(0.5)
    for row in places.results(run):
        assert row["perplexity"]["all"]["bits_per_byte"] > 0, json.dumps(row)
        assert len(row["tasks"]) == 4 and all(
            figures["bits_per_byte"] > 0 for figures in row["tasks"].values()
        )
