"""The dataset's report in a real browser: wide, on a phone, in the dark."""

from pathlib import Path

from data_prep.job import Preprocess
from tests.browser import check_page, needs_browser
from tests.data_prep.conftest import settings


@needs_browser
def test_the_report_in_a_browser(tmp_path: Path) -> None:
    config = settings(tmp_path / "sample")
    Preprocess(config)()
    check_page(config.data_dir() / "report.html", plots=3)
