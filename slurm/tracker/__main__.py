"""The queue tracker: `elm-queue COMMAND` or `python -m slurm.tracker COMMAND`.

Reads squeue, sinfo and sacct; needs no root and no daemon. Everyone who asks within thirty seconds shares one
answer of Slurm's (`poll.py`).
"""

import argparse
import gc
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.errors import InputError
from slurm.tracker import listing, poll
from slurm.tracker.command import Unreachable
from slurm.tracker.poll import Picture
from slurm.tracker.rates import SITES, Rates
from slurm.tracker.show import escaped, span
from slurm.tracker.squeue import Job

if TYPE_CHECKING:
    from slurm.tracker.history import History

DAY = 86400


def main() -> None:
    """Runs one command: exit status 1 when Slurm does not answer, 2 for wrong input."""
    arguments = parser().parse_args()
    if arguments.command not in LONG_LIVED:
        # The process ends with its answer: looking for garbage among a million jobs only takes time.
        gc.disable()
    try:
        sys.exit(COMMANDS[arguments.command](arguments))
    except (InputError, Unreachable) as error:
        print(f"elm-queue: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        # `elm-queue list | head` is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="elm-queue", description=__doc__)
    top.add_argument("--sites", type=Path, default=SITES, help="folder of cluster YAMLs with the rates")
    commands = top.add_subparsers(dest="command", required=True)

    one = commands.add_parser("list", help="what waits and runs")
    add_filters(one)
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")

    one = commands.add_parser("why", help="why a job waits and what to do")
    one.add_argument("id", help="job id as shown by list, as 4711, 4711_3 or 4711+1")

    one = commands.add_parser("eta", help="when a job starts and ends")
    one.add_argument("id", help="job id as shown by list")

    one = commands.add_parser("eff", help="how well finished jobs used what they held")
    one.add_argument("ids", nargs="*", help="job ids; none: my jobs of the period")
    one.add_argument("--since", default="1d", help="period, as 12h, 7d or 4w (default: %(default)s)")

    one = commands.add_parser("history", help="read accounting into the history file and say what it holds")
    one.add_argument("--since", default="90d", help="how far a new file goes back (default: 90d)")

    one = commands.add_parser("report", help="a page about a period")
    one.add_argument("--since", default="7d", help="period up to now (default: %(default)s)")
    one.add_argument("--html", type=Path, required=True, help="file to write")

    one = commands.add_parser("budget", help="spent, committed and forecast per account")
    one.add_argument("--since", default="30d", help="period up to now (default: %(default)s)")
    one.add_argument("--grant", action="append", default=[], metavar="ACCOUNT=UNITS", help="may be repeated")

    one = commands.add_parser("metrics", help="Prometheus text")
    where = one.add_mutually_exclusive_group()
    where.add_argument("--textfile", type=Path, help="write this file for the node exporter's collector")
    where.add_argument("--port", type=int, help="serve http://127.0.0.1:PORT/metrics")

    one = commands.add_parser("top", help="a live view")
    add_filters(one)
    one.add_argument("--plain", action="store_true", help="redraw the list instead, without textual")
    return top


def add_filters(one: argparse.ArgumentParser) -> None:
    one.add_argument("--me", action="store_true", help="only my jobs")
    for name in ("user", "account", "partition", "state"):
        one.add_argument(f"--{name}", default="", help="one or several, separated by commas")
    one.add_argument("--name", default="", help="a part of the job's name")


def filters_of(arguments: argparse.Namespace) -> listing.Filters:
    user = listing.me() if arguments.me else arguments.user
    return listing.Filters(user, arguments.account, arguments.partition, arguments.state, arguments.name)


def list_(arguments: argparse.Namespace) -> int:
    picture, rates = poll.picture(), Rates(arguments.sites)
    found = listing.rows(picture, filters_of(arguments), rates)
    if arguments.json:
        print(listing.json_text(found, picture))
    elif arguments.csv:
        print(listing.csv_list(found, picture), end="")
    else:
        print(listing.text(found, rates))
        print(listing.mark(picture))
    return 0


# The commands below import their modules themselves: list starts quickly without them.


def why_(arguments: argparse.Namespace) -> int:
    from slurm.tracker import why

    picture = poll.picture()
    job = find(picture, arguments.id)
    print(why.text(job, why.explain(job, picture)))
    if picture.failure:
        print(listing.mark(picture))
    return 0


def check_id(wanted: str) -> str:
    """Refuses what is no job id; returns it without its array task or heterogeneous part."""
    match = re.fullmatch(r"([0-9]+)([_+][0-9]+)?", wanted)
    if not match:
        raise InputError(
            f"id: found {wanted!r}; allowed are a job id, id_task or id+part, as 4711, 4711_3 or 4711+1"
        )
    return match[1]


def find(picture: Picture, wanted: str) -> Job:
    """The job with this id; an array's own id, or the id of a waiting task, finds the array's line."""
    base = check_id(wanted)
    exact = [job for job in picture.jobs if wanted in (job.shown_id, str(job.job_id))]
    family = [job for job in picture.jobs if job.array_id == int(base)]
    found = exact or [job for job in family if job.pending] or family
    if not found:
        when = "now" if picture.failure is None else f"as of {picture.age:.0f} s ago"
        raise InputError(f"id: found {wanted}, which neither waits nor runs {when}; see elm-queue eff {base}")
    return found[0]


def eta_(arguments: argparse.Namespace) -> int:
    from slurm.tracker import eta
    from slurm.tracker.runs import progress_of

    picture = poll.picture()
    job = find(picture, arguments.id)
    history, failure = synced_history()
    run = progress_of(job.comment, job.user)
    for line in eta.estimate(job, run, history, time.time()):
        print(f"{job.shown_id}: {line}")
    if failure:
        print(f"{job.shown_id}: STALE history: {failure}")
    if picture.failure:
        print(listing.mark(picture))
    return 0


def eff_(arguments: argparse.Namespace) -> int:
    from slurm.tracker import efficiency
    from slurm.tracker.history import slurm_time

    if arguments.ids:
        for wanted in arguments.ids:
            check_id(wanted)
        found = efficiency.measure("-j", ",".join(arguments.ids))
    else:
        begin = slurm_time(time.time() - period(arguments.since))
        found = efficiency.measure("-S", begin, "--user", listing.me())
    if not found:
        raise InputError(f"{' '.join(arguments.ids) or '--since'}: accounting knows no such job")
    print(efficiency.text(found))
    return 0


def history_(arguments: argparse.Namespace) -> int:
    from slurm.tracker.history import History, slurm_time

    history = History()
    count = history.sync(period(arguments.since) / DAY)
    total, first = history.connection.execute("SELECT count(*), min(submit) FROM lives").fetchone()
    oldest = "" if first is None else f", the oldest from {slurm_time(first)} UTC"
    print(f"{history.path}: {count} lives read, {total} known{oldest}")
    return 0


def report_(arguments: argparse.Namespace) -> int:
    from slurm.tracker import report, summary

    now = time.time()
    begin = now - period(arguments.since)
    if not arguments.html.absolute().parent.is_dir():
        raise InputError(f"--html: the folder {arguments.html.absolute().parent} does not exist")
    history, failure = synced_history()
    try:
        nodes = poll.picture().nodes
    except Unreachable:
        nodes = []
    rates = Rates(arguments.sites)
    page = report.page(summary.summarize(history, rates, begin, now), rates, nodes, failure)
    report.write(arguments.html, page)
    print(f"{arguments.html}: written{', with stale figures' if failure else ''}")
    return 0


def budget_(arguments: argparse.Namespace) -> int:
    from slurm.tracker import budget

    grants = dict(grant(text) for text in arguments.grant)
    picture = poll.picture()
    history, failure = synced_history()
    rates, now = Rates(arguments.sites), time.time()
    days = period(arguments.since) / DAY
    found = budget.accounts(history, picture.jobs, rates, days, now)
    print(budget.text(found, rates, days, grants))
    if failure:
        print(f"STALE history: {failure}")
    print(listing.mark(picture))
    return 0


def metrics_(arguments: argparse.Namespace) -> int:
    from slurm.tracker import metrics, metrics_port

    if arguments.port is not None:
        metrics_port.serve(arguments.port)
        return 0
    content, fresh = metrics.text()
    if arguments.textfile:
        metrics.write(arguments.textfile, content)
    else:
        print(content, end="")
    return 0 if fresh else 1


def top_(arguments: argparse.Namespace) -> int:
    filters, rates = filters_of(arguments), Rates(arguments.sites)
    if not arguments.plain:
        try:
            from slurm.tracker import top
        except ImportError:
            print("textual is not installed (pip install textual); showing the plain list", file=sys.stderr)
        else:
            top.show(filters, rates)
            return 0
    from slurm.tracker import watch

    watch.show(filters, rates)
    return 0


def synced_history() -> tuple["History", str | None]:
    """The history, brought up to date if accounting answers, and else why it is stale."""
    from slurm.tracker.history import History

    history = History()
    try:
        history.sync()
    except Unreachable as error:
        if history.synced is None:
            raise
        return history, f"{span(time.time() - history.synced)} old, because {escaped(str(error))}"
    return history, None


def period(text: str) -> float:
    """Seconds of `12h`, `7d`, `4w`."""
    match = re.fullmatch(r"(\d{1,4})([hdw])", text)
    if not match or int(match[1]) == 0:
        raise InputError(f"--since: found {text!r}; allowed are hours, days or weeks, as 12h, 7d or 4w")
    return int(match[1]) * {"h": 3600, "d": DAY, "w": 7 * DAY}[match[2]]


def grant(text: str) -> tuple[str, float]:
    account, _, units = text.partition("=")
    if not account or not re.fullmatch(r"\d+(\.\d+)?", units):
        raise InputError(f"--grant: found {text!r}; allowed is ACCOUNT=UNITS, as eur=500000")
    return account, float(units)


COMMANDS = {
    "list": list_,
    "why": why_,
    "eta": eta_,
    "eff": eff_,
    "history": history_,
    "report": report_,
    "budget": budget_,
    "metrics": metrics_,
    "top": top_,
}

LONG_LIVED = frozenset({"metrics", "top"})

if __name__ == "__main__":
    main()
