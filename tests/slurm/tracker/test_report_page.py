"""The report in a real browser: wide, on a phone, in the dark."""

from __future__ import annotations

import runpy
from pathlib import Path

from data_prep import files
from slurm.tracker import report
from slurm.tracker.history import DAY, History
from slurm.tracker.rates import Rates
from slurm.tracker.summary import summarize
from tests.browser import check_page, needs_browser

NOW = 1_770_000_000


@needs_browser
def test_the_report_in_a_browser(tmp_path: Path) -> None:
    history, rates = History(tmp_path / "history.sqlite"), Rates()
    invented = runpy.run_path(str(Path(__file__).with_name("invented.py")))
    attempts = list(invented["attempts"](2000, NOW, days=14))
    # Names that nobody chose with a phone in mind.
    attempts[0].user, attempts[0].gpus = "u" * 200, 4000
    attempts[0].account = "an-account-with-a-name-without-end" * 4
    history.add(attempts)
    page = tmp_path / "report.html"
    files.write(page, report.page(summarize(history, rates, NOW - 14 * DAY, NOW), rates, []))
    check_page(page, plots=4)
