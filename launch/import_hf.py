"""Bring a Hugging Face Llama into a run, whose checkpoint loads in any layout.

    python launch/import_hf.py source=<Hugging Face folder>

Afterwards `train.init_from=<run>` goes on pretraining and `source=<run>` tunes.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.plain import plain
from conf.schema.hf import ImportConfig
from elm_megatron.hf.job import Import
from elm_megatron.model.hf_config import model_config
from elm_megatron.sources import ownership
from elm_megatron.sources.places import require_hf_folder
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import show_plain

sweep = Sweep()


@main("import_hf", ImportConfig, sweep.begin)
def launch(config: ImportConfig) -> int:
    """Read the model's sizes, then hand the job over."""
    folder = require_hf_folder(config.source)
    config.model = model_config(folder, folder.name)
    ownership.claim(config.run, "import_hf", plain(config))
    if config.dry_run:
        return show_plain(
            config, 1, "import_hf", f"{folder} → {config.run.dir} ({config.model.parameters():,} parameters)"
        )
    return sweep.submit(Import(config), config, 1, "import_hf", resumes=False)


if __name__ == "__main__":
    launch()
