"""Pretrain a model.

    python launch/pretrain.py model=large cluster=snellius dry_run=true
    python launch/pretrain.py model=large cluster=snellius
    python launch/pretrain.py -m model=small cluster=snellius cluster.nodes=1,2,4,8

The same command again goes on where the run stopped.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.pretrain import PretrainConfig
from data_prep.dataset import open_dataset, open_parts
from elm_megatron.engine.job import Train
from elm_megatron.planner.layout import settle
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import show

sweep = Sweep()


@main("pretrain", PretrainConfig, sweep.begin)
def launch(config: PretrainConfig) -> int:
    """Check the dataset, then hand the job over."""
    settle(config, print)
    if config.dry_run:
        return show(config)
    length, trained = config.train.seq_length, not config.data.blend
    manifest = open_dataset(config.data.dir, config.corpus, config.model.vocab_size, length, trained)
    open_parts(config.data, manifest, length)
    return sweep.submit(Train(config), config, config.world_size, "pretrain", manifest.sha256)


if __name__ == "__main__":
    launch()
