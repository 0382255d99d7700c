"""The end of a log is shown escaped, from where Slurm or the run folder says."""

from __future__ import annotations

import os
from pathlib import Path

from slurm.tracker import poll
from slurm.tracker.logs import log_path, log_tail


def test_the_log_is_shown_escaped(fake_slurm, rows, tmp_path: Path) -> None:
    (tmp_path / "slurm-21_1.out").write_text("first\n\x1b[2Jsecond\n")
    array = {"JobArrayID": "21_1", "ArrayJobID": "21", "ArrayTaskID": "1"}
    fake_slurm.answer(
        [
            rows(23, STDOUT=f"{tmp_path}/slurm-23.out", **array),
            rows(24, STDOUT=f"{tmp_path}/slurm-%A_%a.out", **array),
            rows(25, STDOUT=f"{tmp_path}/no-%j-%u.out"),
        ]
    )
    first, second, third = poll.picture().jobs
    assert log_path(first) == log_path(second) == f"{tmp_path}/slurm-21_1.out"
    assert "\\x1b[2Jsecond" in log_tail(first)
    assert log_tail(third).endswith("no-25-anna.out cannot be read: No such file or directory")
    os.mkfifo(tmp_path / "no-25-anna.out")
    assert "is no plain file" in log_tail(third)
