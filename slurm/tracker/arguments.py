"""The command line of elm-queue: what each command takes, and one sentence for what it does not."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from conf.errors import InputError
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
DESCRIPTION = """What waits, why, until when, at what cost, and how well it ran.

Reads squeue, sinfo and sacct; needs no root and no daemon. Everyone who asks within thirty seconds shares one
answer of Slurm's.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    top = argparse.ArgumentParser(prog="elm-queue", description=DESCRIPTION)
    top.add_argument("--sites", type=_folder, default=SITES, help="folder of cluster YAMLs with the rates")
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

    one = commands.add_parser("eff", help="how well finished jobs used what they held")
    one.add_argument("ids", nargs="*", help="job ids; none: my jobs of the period")
    one.add_argument("--since", default="1d", help="period, as 12h, 7d, 4w or a date (default: %(default)s)")

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

    one = commands.add_parser("metrics", help="Prometheus text")
    where = one.add_mutually_exclusive_group()
    where.add_argument("--textfile", type=Path, help="write this file for the node exporter's collector")
    where.add_argument("--port", type=int, help="serve http://127.0.0.1:PORT/metrics")

    one = commands.add_parser("top", help="a live view")
    _add_filters(one)
    one.add_argument("--plain", action="store_true", help="redraw the list instead, without textual")
    return top


def _add_filters(one: argparse.ArgumentParser) -> None:
    one.add_argument("--me", action="store_true", help="only my jobs")
    for name in ("user", "account", "partition", "state"):
        one.add_argument(f"--{name}", default="", help="one or several, separated by commas")
    one.add_argument("--name", default="", help="a part of the job's name")


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"found {text!r}, which is no folder")
    return Path(text)


def check_id(wanted: str) -> str:
    """Refuse what is no job id; return it without its array task or heterogeneous part."""
    match = re.fullmatch(r"([0-9]+)([_+][0-9]+)?", wanted)
    if not match:
        raise InputError(
            f"id: found {wanted!r}; allowed are a job id, id_task or id+part, as 4711, 4711_3 or 4711+1"
        )
    return match[1]


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


def states(text: str) -> str:
    """The states that `--state` names, in squeue's long words: `pd,running` is `PENDING,RUNNING`."""
    long = {short: name for name, short in STATES.items()}
    wanted = [word.strip().upper() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in STATES and word not in long:
            raise InputError(f"--state: found {word.lower()!r}; allowed are {', '.join(STATES).lower()}")
    return ",".join(long.get(word, word) for word in wanted)


def grant(text: str) -> tuple[str, float]:
    """An account and its units, of `eur=500000`."""
    account, _, units = text.partition("=")
    if not account or not re.fullmatch(r"\d+(\.\d+)?", units):
        raise InputError(f"--grant: found {text!r}; allowed is ACCOUNT=UNITS, as eur=500000")
    return account, float(units)
