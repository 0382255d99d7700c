"""``report.html``: what a dataset holds, for people."""

from __future__ import annotations

from pathlib import Path

from data_prep.manifest import Manifest

REPORT = "report.html"


def write_report(manifest: Manifest, folder: Path) -> None:
    """Write the report of a dataset whose other files lie in a folder."""
