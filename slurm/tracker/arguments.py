"""The command line of elm-queue: what each command takes, and one sentence for what it does not."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from conf.errors import InputError
from slurm.tracker.listing import Filters, me
from slurm.tracker.rates import SITES

DAY = 86400
# What a job in the queue can be, and squeue's short words for it.
STATES = {
    "PENDING": "PD",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETING": "CG",
    "CONFIGURING": "CF",
    "STOPPED": "ST",
    "RESIZING": "RS",
    "SIGNALING": "SI",
    "STAGE_OUT": "SO",
    "REQUEUED": "RQ",
    "REQUEUE_HOLD": "RH",
    "REQUEUE_FED": "RF",
    "SPECIAL_EXIT": "SE",
    "RESV_DEL_HOLD": "RD",
}
ENDED = {
    "COMPLETED": "CD",
    "FAILED": "F",
    "CANCELLED": "CA",
    "TIMEOUT": "TO",
    "PREEMPTED": "PR",
    "NODE_FAIL": "NF",
    "OUT_OF_MEMORY": "OOM",
    "BOOT_FAIL": "BF",
    "DEADLINE": "DL",
    "REVOKED": "RV",
}
DESCRIPTION = """What waits, why, until when, at what cost, and how well it ran.

Reads squeue, sinfo and sacct; needs no root and no daemon. Everyone who asks within thirty seconds shares one
answer of Slurm's.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    top = argparse.ArgumentParser(prog="elm-queue", description=DESCRIPTION)
    top.add_argument("--sites", type=_folder, default=SITES, help="folder of cluster YAMLs with the rates")
    top.add_argument(
        "--cluster", default="", help="Slurm cluster, or several separated by commas (sacctmgr show cluster)"
    )
    commands = top.add_subparsers(dest="command", required=True)

    one = commands.add_parser("list", help="what waits and runs")
    _add_filters(one)
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")

    one = commands.add_parser("why", help="why a job waits and what to do")
    one.add_argument("id", help="job id as shown by list, as 4711, 4711_3 or 4711+1")

    one = commands.add_parser("eta", help="when a job starts and ends")
    one.add_argument("id", help="job id as shown by list")

    one = commands.add_parser("priority", help="of which parts a waiting job's priority is made")
    one.add_argument("id", help="job id as shown by list")
    one.add_argument("--json", action="store_true")

    one = commands.add_parser("nodes", help="nodes with their reasons, reservations, coming maintenance")
    one.add_argument("--partition", default="", help="one or several, separated by commas")
    one.add_argument("--closed", action="store_true", help="only nodes that take no jobs")
    one.add_argument("--json", action="store_true")

    _add_run_verbs(commands)

    one = commands.add_parser("eff", help="how well jobs used what they held")
    one.add_argument("ids", nargs="*", metavar="ID|RUN", help="job ids or runs; none: jobs of the period")
    one.add_argument("--since", default="1d", help="period, as 12h, 7d, 4w or a date (default: %(default)s)")
    one.add_argument("--user", default="", help="whose jobs of the period: a user, or all (default: mine)")
    one.add_argument("--state", default="", help="one or several, separated by commas, as completed,timeout")
    one.add_argument("--file", type=Path, help="file with a job id or a name as slurm-4711.out on each line")
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")

    one = commands.add_parser("history", help="read accounting into the history file and say what it holds")
    one.add_argument(
        "--since", default="90d", help="how far it is to go back, as 90d or a date (default: 90d)"
    )

    one = commands.add_parser("report", help="a page about a period")
    one.add_argument(
        "--since", default="7d", help="period up to now, as 7d, 4w or a date (default: %(default)s)"
    )
    one.add_argument("--html", type=Path, required=True, help="file to write")

    one = commands.add_parser("budget", help="spent, committed and forecast per account")
    one.add_argument("--since", help="period up to now (default: 30d); with --grant, since the grants began")
    one.add_argument("--grant", action="append", default=[], metavar="ACCOUNT=UNITS", help="may be repeated")

    one = commands.add_parser(
        "notify", help="for cron on a login node: send what runs could not send, and find stalled runs"
    )
    one.add_argument(
        "runs",
        type=_folder,
        nargs="?",
        default="runs",
        help="the folder that has the runs (default: %(default)s)",
    )

    one = commands.add_parser("metrics", help="Prometheus text")
    where = one.add_mutually_exclusive_group()
    where.add_argument("--textfile", type=Path, help="write this file for the node exporter's collector")
    where.add_argument("--port", type=int, help="serve http://127.0.0.1:PORT/metrics")

    one = commands.add_parser("top", help="a live view")
    _add_filters(one)
    one.add_argument("--plain", action="store_true", help="redraw the list instead, without textual")
    return top


def _add_run_verbs(commands: Any) -> None:
    """The commands about one run or job."""
    for name, words in (
        ("status", "where a run is: queue, run.json, progress"),
        ("log", "the end of a log, and what is added to it"),
        ("save", "let a running run save; it is requeued and goes on"),
        ("stop", "let a running run save and end"),
        ("cancel", "cancel a job"),
        ("retry", "start a job again without the nodes that failed it"),
    ):
        one = commands.add_parser(name, help=words)
        one.add_argument("run", metavar="RUN|ID", help="a run's name or folder, or a job id")
        if name == "status":
            one.add_argument("--json", action="store_true")
        if name == "log":
            one.add_argument(
                "-n", "--lines", type=_count, default=40, help="of its end (default: %(default)s)"
            )
            one.add_argument("--no-follow", action="store_true", help="do not wait for more")
        if name == "retry":
            one.add_argument(
                "--without", default="", metavar="NODES", help="default: the nodes that were lost"
            )


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed is a whole number from 0 on")
    return int(text)


def _add_filters(one: argparse.ArgumentParser) -> None:
    one.add_argument("--me", action="store_true", help="only my jobs")
    for name in ("user", "account", "partition", "state"):
        one.add_argument(f"--{name}", default="", help="one or several, separated by commas")
    one.add_argument("--name", default="", help="a part of the job's name")


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"found {text!r}, which is no folder")
    return Path(text)


def period(text: str, now: float | None = None) -> float:
    """Seconds of `12h`, `7d`, `4w`, or since a local day or moment: `2026-01-31`, `2026-01-31T12:00`."""
    match = re.fullmatch(r"(\d{1,4})([hdw])", text)
    if match and int(match[1]):
        return int(match[1]) * {"h": 3600, "d": DAY, "w": 7 * DAY}[match[2]]
    now = time.time() if now is None else now
    if re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?", text):
        with suppress(ValueError, OverflowError, OSError):
            begin = datetime.fromisoformat(text).timestamp()
            if begin < now:
                return now - begin
            raise InputError(f"--since: found {text}, which has not come yet")
    raise InputError(
        f"--since: found {text!r}; allowed are hours, days or weeks, as 12h, 7d or 4w, "
        "or a date, as 2026-01-31"
    )


def states(text: str, ended: bool = False) -> str:
    """The states that `--state` names, in Slurm's long words: `pd,running` is `PENDING,RUNNING`.

    Args:
        text: words separated by commas.
        ended: states of jobs that ended are allowed too.
    """
    allowed = STATES | (ENDED if ended else {})
    long = {short: name for name, short in allowed.items()}
    wanted = [word.strip().upper() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in allowed and word not in long:
            raise InputError(f"--state: found {word.lower()!r}; allowed are {', '.join(allowed).lower()}")
    return ",".join(long.get(word, word) for word in wanted)


def filters_of(arguments: argparse.Namespace) -> Filters:
    """The filters of `list` and `top`."""
    user = me() if arguments.me else arguments.user
    return Filters(user, arguments.account, arguments.partition, states(arguments.state), arguments.name)


def grant(text: str) -> tuple[str, float]:
    """An account and its units, of `eur=500000`."""
    account, _, units = text.partition("=")
    if not account or not re.fullmatch(r"\d+(\.\d+)?", units):
        raise InputError(f"--grant: found {text!r}; allowed is ACCOUNT=UNITS, as eur=500000")
    return account, float(units)
