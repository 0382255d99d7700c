"""Make a Hugging Face folder or a GGUF file of a run: python launch/export.py source=<run> [step= format=]

The same command again finds the export made, as long as the checkpoint and the settings are the same.
"""

from elm_megatron.compose import main
from elm_megatron.hf.config import ExportConfig
from elm_megatron.hf.job import Export
from elm_megatron.hf.source import locate, parameters_of
from slurm.submit import submit


@main("export", ExportConfig)
def launch(config: ExportConfig) -> int:
    """Check that there is a source, then hand the job over."""
    locate(config.source)
    if config.dry_run:
        from slurm.dry_run import show_plain

        size = parameters_of(config.source)
        return show_plain(
            config, 1, "export", f"{config.source} → {config.run.dir} ({config.format}, {size:,} parameters)"
        )
    return submit(Export(config), config, 1, "export", resumes=False)


if __name__ == "__main__":
    launch()
