"""A rank that fails ends the whole job in seconds, also where its peers wait in a collective."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from slurm.jobs.local import LocalWorld, StopRequest, start
from tests.elm_megatron.tune import configs

SECONDS = 60  # a world that hangs is ended by the test's own limit

RANK = """
import pickle, sys, time
from pathlib import Path
from elm_megatron.engine.job import Train
from elm_megatron.tune.tasks import tuning
from slurm.jobs import task

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
config = pickle.loads((folder / "config.pickle").read_bytes())

def broken(config):
    import torch.distributed as dist
    found, destroy, reduce = tuning(config), dist.destroy_process_group, dist.all_reduce

    def waits_for_peers(*arguments):  # as NCCL's: it flushes communicators that others are inside of
        time.sleep(600)

    def never_hears(*arguments, **options):  # as NCCL's: a peer's end is not noticed
        try:
            return reduce(*arguments, **options)
        except RuntimeError:
            print("waiting for a dead peer", flush=True)
            time.sleep(600)

    dist.destroy_process_group, dist.all_reduce = waits_for_peers, never_hears
    step = found.before_step

    def before_step(self, number):
        if number == 1 and rank == 1:
            raise RuntimeError("a broken rank")
        step(self, number)

    found.before_step = before_step
    return found

task.run(Train(config, broken), task.local_world(Path(config.run.dir), rank, 2, "test"))
"""


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_rank_that_raises_in_tuning_ends_all(
    stage: str, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Leaving the groups after an exception would wait for peers that wait for this rank."""
    config = configs.finetune_config(tmp_path / "run", base, 2, stage, r=4, alpha=8.0, steps=1000)
    run = configs.folder_of(config)
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(config))
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    logs = [(run.logs / f"{rank}.out", run.logs / f"{rank}.err") for rank in range(2)]
    root = str(Path(__file__).resolve().parents[3])
    ranks = start(
        ["timeout", str(SECONDS), "sh", "-c", f"exec {sys.executable} {script} $RANK {tmp_path}"],
        logs,
        {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        [{"RANK": str(rank)} for rank in range(2)],
        [tmp_path / f"result-{rank}" for rank in range(2)],
    )
    assert LocalWorld(ranks, tmp_path / "refusal").watch(StopRequest()) == 1
    assert all(rank.process.returncode is not None for rank in ranks)
    assert ranks[1].process.returncode == 1, "ended by the limit: the rank did not go by itself"
    assert "a broken rank" in logs[1][0].read_text()
