"""Write the page of a run: one HTML file with curves, attempts, stragglers, energy, evaluations and samples.

python launch/report.py source=pretrain-tiny-sample
python launch/report.py source=runs/dpo-large-eur out=dpo.html
"""

from pathlib import Path

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.hf import ReportConfig
from elm_megatron.card.run_page import write
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import locate
from slurm.jobs.ear import read_back


@main("report", ReportConfig)
def launch(config: ReportConfig) -> int:
    """Find the run and write its page."""
    out = Path(config.out).expanduser() if config.out else None
    folder = locate(config.source)
    read_back(RunFolder(folder))
    print(write(folder, out))
    return 0


if __name__ == "__main__":
    launch()
