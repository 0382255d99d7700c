"""How long does the tracker take for ten thousand waiting jobs, and for a history of a million?

    python tests/bench/tracker.py [--jobs 10000] [--attempts 1000000] [--repeats 5]

squeue and sinfo are scripts that answer with an invented queue, so what is measured is the tracker alone: the
seconds of a whole `elm-queue list` less those of the two scripts. Runs on any machine, without a Slurm.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from slurm.tracker import command, nodes, squeue
from slurm.tracker.history import History

TESTS = Path(__file__).resolve().parents[1] / "slurm" / "tracker"
# Prints its own peak after the list: getrusage counts what the parent held before exec.
LIST = """
import atexit, pathlib, sys
atexit.register(lambda: print(pathlib.Path("/proc/self/status").read_text(), file=sys.stderr))
sys.argv = ["elm-queue", "list"]
from slurm.tracker.__main__ import main
main()
"""


class Cost(NamedTuple):
    """Seconds by the clock and of the processor, and the peak in MiB that the process wrote down itself."""

    wall: float
    cpu: float
    peak: float


def main() -> None:
    """Print the seconds and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5, help="the quickest counts")
    args = parser.parse_args()
    print("load average:", *(f"{load:.1f}" for load in os.getloadavg()))
    with tempfile.TemporaryDirectory() as folder:
        bench_list(Path(folder), args.jobs, args.repeats)
        bench_report(Path(folder), args.attempts, args.repeats)


def bench_list(folder: Path, jobs: int, repeats: int) -> None:
    shared = runpy.run_path(str(TESTS / "conftest.py"))
    fake = shared["FakeSlurm"](folder / "fake")
    fake.answer(list(queue(jobs, shared["job_row"])))
    os.environ |= {
        "PATH": f"{fake.folder}:{os.environ['PATH']}",
        "ELM_QUEUE_CACHE": str(folder / "cache"),
        "ELM_QUEUE_MAX_AGE": "0",
    }
    separator = command.separator()
    asked = [quickest(asking.command(separator), repeats) for asking in (squeue, nodes)]
    listed = quickest([sys.executable, "-c", LIST], repeats)
    wall, cpu = (listed[part] - sum(cost[part] for cost in asked) for part in (0, 1))
    print(f"list of {jobs:,} jobs beyond squeue: {wall:.2f} s, {cpu:.2f} s of the processor")
    print(f"list of {jobs:,} jobs: peak {listed.peak:.0f} MiB")


def queue(count: int, job_row: Callable[..., dict[str, str]]) -> Iterator[dict[str, str]]:
    """Waiting and running jobs; names, times and priorities differ, as in a real queue."""
    chance = random.Random(8)

    def moment(first_hour: int, last_hour: int) -> str:
        when = datetime.now(UTC) + timedelta(seconds=chance.randrange(first_hour * 3600, last_hour * 3600))
        return when.strftime("%Y-%m-%dT%H:%M:%S")

    for number in range(1, count + 1):
        submitted = moment(-500, -24)
        running = {
            "State": "RUNNING",
            "Reason": "None",
            "TimeUsed": f"{chance.randrange(24)}:{chance.randrange(60):02d}:{chance.randrange(60):02d}",
            "NodeList": f"gcn{chance.randrange(1, 200)}",
        }
        waiting = {
            "Name": f"train-{number}",
            "UserName": f"user{chance.randrange(300):03d}",
            "Partition": chance.choice(("gpu_h100", "gpu_a100", "rome")),
            "Reason": chance.choice(("Priority", "Resources", "Dependency")),
            "SubmitTime": submitted,
            "EligibleTime": submitted,
            "StartTime": moment(-24, 24),
            "EndTime": moment(24, 120),
            "TimeLimit": chance.choice(("30:00", "1:00:00", "1-00:00:00", "5-00:00:00")),
            "PriorityLong": str(chance.randrange(100_000)),
            "STDOUT": f"/home/user/slurm-{number}.out",
        }
        yield job_row(number, **(waiting | running if number % 4 == 0 else waiting))


def quickest(argv: Sequence[str], repeats: int) -> Cost:
    return min((measured(argv) for _ in range(repeats)), key=lambda cost: cost.cpu)


def measured(argv: Sequence[str]) -> Cost:
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = re.search(r"VmHWM:\s*(\d+)", done.stderr)
    return Cost(wall, cpu, int(peak[1]) / 1024 if peak else 0.0)


def bench_report(folder: Path, attempts: int, repeats: int) -> None:
    """The whole command, with accounting read a moment ago."""
    os.environ["ELM_QUEUE_MAX_AGE"] = "3600"
    end = int(time.time())
    history = History()
    history.add(list(runpy.run_path(str(TESTS / "invented.py"))["attempts"](attempts, end, days=7)))
    with history.connection:
        history.connection.execute("INSERT OR REPLACE INTO meta VALUES ('synced', ?)", (end,))
    words = ["report", "--since", "7d", "--html", str(folder / "report.html")]
    cost = quickest([sys.executable, "-m", "slurm.tracker", *words], repeats)
    print(f"report on {attempts:,} attempts: {cost.wall:.2f} s, {cost.cpu:.2f} s of the processor")


if __name__ == "__main__":
    main()
