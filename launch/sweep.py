"""Set the points of a sweep side by side.

    python launch/sweep.py report [runs/.sweeps/KEY.json]

Writes a table (CSV, Markdown) and a plot beside the sweep; without a name, of the newest one.
"""

import argparse
import sys
from pathlib import Path

import checkout  # noqa: F401
from conf.process import guarded
from slurm.chains import sweep_report


def report() -> int:
    """Write the report and show its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["report"])
    parser.add_argument("sweep", type=Path, nargs="?", help="a file in runs/.sweeps")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs are")
    arguments = parser.parse_args()
    written = sweep_report.write_report(arguments.sweep or sweep_report.newest(arguments.runs))
    print(written[1].read_text(encoding="utf-8"))
    print("written:", *written)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(report))
