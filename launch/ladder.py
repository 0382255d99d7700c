"""Predict a model's loss: train small models of its family, and fit a power law of compute.

    python launch/ladder.py model=large cluster=snellius dry_run=true
    python launch/ladder.py model=large cluster=snellius
    python launch/ladder.py model=tiny widths=[0.25,0.375,0.5,0.75] least_steps=20

Each small model is a pretraining run of its own. The same command again goes on where they stopped, and
predicts the loss when all are done. The plan (launch/plan.py) shows what was predicted.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.errors import InputError
from conf.schema.ladder import LadderConfig
from data_prep.dataset import open_dataset
from elm_megatron.engine.job import Train
from elm_megatron.planner.climb import conclude, show_runs
from elm_megatron.planner.layout import settle
from elm_megatron.planner.length import estimate
from elm_megatron.planner.rungs import repeats, rungs
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import budget_words, hours_words


@main("ladder", LadderConfig)
def launch(config: LadderConfig) -> int:
    """Hand over the runs that are missing, then predict."""
    if config.data.blend:
        raise InputError("data.blend: a ladder is trained on one dataset; leave it empty.")
    runs = rungs(config)
    guesses = [(estimate(run), run) for run in runs]
    show_runs(runs, [(hours_words(*guess), budget_words(*guess)) for guess in guesses])
    if note := repeats(config):
        print(f"note: {note}")
    if config.dry_run:
        return 0
    manifest = open_dataset(config.data.dir, config.corpus, config.model.vocab_size, config.train.seq_length)
    sweep = Sweep(names=[run.run.name for run in runs])
    for run in runs:
        settle(run, print)
        job = Train(run)
        if status := sweep.submit(job, run, run.world_size, "pretrain", manifest.sha256):
            return status
    return conclude(config, runs)


if __name__ == "__main__":
    launch()
