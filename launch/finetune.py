"""Tune an adapter (LoRA) on a model: answers (stage=sft) or preferences (stage=dpo).

    python launch/finetune.py source=pretrain-large-eur model=large sft.files=[alpaca.json] cluster=snellius
    python launch/finetune.py source=finetune-large-eur model=large stage=dpo dpo.files=[students.xlsx]
    python launch/finetune.py source=pretrain-large-eur model=large sft.files=[community]

The same command again goes on where the run stopped. <run>/adapter holds the adapter as PEFT writes one.
"""

from contextlib import suppress

import checkout  # noqa: F401
from conf.compose import main
from conf.errors import InputError
from conf.schema.tune import FinetuneConfig
from elm_megatron.chat.read import listing
from elm_megatron.community.exports import of_community
from elm_megatron.engine.job import Train
from elm_megatron.planner.layout import settle
from elm_megatron.tune.prepare import adopt, look_at_files, prepare
from elm_megatron.tune.tasks import tuning
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import line, show

sweep = Sweep()


@main("finetune", FinetuneConfig, sweep.begin)
def launch(config: FinetuneConfig) -> int:
    """Look at source and files before anything starts, then hand the job over."""
    config = of_community(config)
    if config.dry_run:
        with suppress(InputError):  # the source may still have to be made
            adopt(config)
        settle(config, print)
        line("data", listing(look_at_files(config)))
        return show(config)
    source = prepare(config)
    settle(config, print)
    return sweep.submit(Train(config, tuning), config, config.world_size, "finetune", source.manifest_sha256)


if __name__ == "__main__":
    launch()
