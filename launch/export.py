"""Make a Hugging Face folder or a GGUF file of a run.

    python launch/export.py source=pretrain-large-eur
    python launch/export.py source=finetune-large-eur format=gguf dtype=q8_0

The same command again finds the export made, as long as the checkpoint and the settings are the same.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.plain import plain
from conf.schema.hf import ExportConfig
from elm_megatron.hf.job import Export
from elm_megatron.sources import ownership
from elm_megatron.sources.lineage import stages_of
from elm_megatron.sources.places import locate
from elm_megatron.sources.source import parameters_of
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import show_plain
from slurm.jobs.ear import read_back

sweep = Sweep()


@main("export", ExportConfig, sweep.begin)
def launch(config: ExportConfig) -> int:
    """Check that there is a source, then hand the job over."""
    folder = locate(config.source)
    if not config.dry_run:
        for stage in stages_of(folder):
            read_back(stage.run)
    ownership.claim(config.run, "export", plain(config))
    if config.dry_run:
        size = parameters_of(config.source)
        return show_plain(
            config, 1, "export", f"{config.source} → {config.run.dir} ({config.format}, {size:,} parameters)"
        )
    return sweep.submit(Export(config), config, 1, "export", resumes=False)


if __name__ == "__main__":
    launch()
