"""Tune an adapter: python launch/finetune.py source=<run|HF folder> [stage=dpo sft.files=[…] tune.r=…]

The same command again goes on where the run stopped. The adapter lies in <run>/adapter as PEFT writes one.
"""

from contextlib import suppress

from data_prep.errors import InputError
from elm_megatron.compose import main
from elm_megatron.tune.config import FinetuneConfig
from elm_megatron.tune.job import Finetune
from elm_megatron.tune.prepare import look_at_files, prepare
from elm_megatron.tune.read import listing
from elm_megatron.tune.source import adopt
from slurm.submit import submit


@main("finetune", FinetuneConfig)
def launch(config: FinetuneConfig) -> int:
    """Look at source and files before anything starts, then hand the job over."""
    if config.dry_run:
        from slurm.dry_run import line, show

        with suppress(InputError):  # the source may still have to be made
            adopt(config)
        line("data", listing(look_at_files(config)))
        return show(config)
    source = prepare(config)
    return submit(Finetune(config), config, config.world_size, "finetune", source.manifest_sha256)


if __name__ == "__main__":
    launch()
