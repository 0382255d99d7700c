"""The queue tracker: `elm-queue COMMAND` or `python -m slurm.tracker COMMAND`.

Reads squeue, sinfo and sacct; needs no root and no daemon. Everyone who asks within thirty seconds shares one
answer of Slurm's (`poll.py`).
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import InputError
from data_prep import files
from slurm.tracker import listing, poll
from slurm.tracker.arguments import DAY, check_id, grant, parser, period, states
from slurm.tracker.command import Unreachable
from slurm.tracker.poll import Picture
from slurm.tracker.rates import Rates
from slurm.tracker.show import escaped, span
from slurm.tracker.squeue import Job

if TYPE_CHECKING:
    from slurm.tracker.history import History


def main() -> None:
    """Run one command: exit status 1 when Slurm does not answer, 2 for wrong input."""
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


def _filters_of(arguments: argparse.Namespace) -> listing.Filters:
    user = listing.me() if arguments.me else arguments.user
    return listing.Filters(
        user, arguments.account, arguments.partition, states(arguments.state), arguments.name
    )


def _list(arguments: argparse.Namespace) -> int:
    picture, rates = poll.picture(), Rates(arguments.sites)
    found = listing.rows(picture, _filters_of(arguments), rates)
    if arguments.json:
        print(listing.json_text(found, picture))
    elif arguments.csv:
        print(listing.csv_list(found, picture), end="")
    else:
        print(listing.text(found, rates, picture))
    return 0


# The commands below import their modules themselves: list starts quickly without them.


def _why(arguments: argparse.Namespace) -> int:
    from slurm.tracker import why

    picture = poll.picture()
    job = _find(picture, arguments.id)
    print(why.text(job, why.explain(job, picture)))
    print(listing.mark(picture))
    return 0


def _find(picture: Picture, wanted: str) -> Job:
    """The job with this id; an array's own id, or the id of a waiting task, finds the array's line."""
    base = check_id(wanted)
    exact = [job for job in picture.jobs if wanted in (job.shown_id, str(job.job_id))]
    family = [job for job in picture.jobs if job.array_id == int(base)]
    found = exact or [job for job in family if job.pending] or family
    if not found:
        when = f"as of {span(picture.age)} ago"
        raise InputError(
            f"id: found {wanted}, which neither waits nor runs, {when}; see elm-queue eff {base}"
        )
    return found[0]


def _eta(arguments: argparse.Namespace) -> int:
    from slurm.tracker import eta
    from slurm.tracker.runs import progress_of

    picture = poll.picture()
    job = _find(picture, arguments.id)
    try:
        history, failure = _synced_history()
    except Unreachable as error:
        # The scheduler's own estimate needs no accounting.
        history, failure = None, escaped(str(error))
    run = progress_of(job.comment, job.user)
    for line in eta.estimate(job, run, history, time.time()):
        print(f"{job.shown_id}: {line}")
    if failure:
        told = _stale(history, failure) if history else f"no history, because {failure}"
        print(f"{job.shown_id}: {told}")
    print(listing.mark(picture))
    return 0


def _eff(arguments: argparse.Namespace) -> int:
    from slurm.tracker import efficiency
    from slurm.tracker.history import slurm_time

    if not arguments.ids:
        begin = slurm_time(time.time() - period(arguments.since))
        jobs = efficiency.measure("-S", begin, "--user", listing.me())
        found = [job for job in jobs if job.state != "PENDING"]
        none = f"no job of {listing.me()} ran in the last {arguments.since}"
        print(efficiency.text(found) if found else none)
        return 0
    bases = {wanted: check_id(wanted) for wanted in arguments.ids}
    found = efficiency.measure("-j", ",".join(arguments.ids))
    if found:
        print(efficiency.text(found))
    known = {re.split(r"[_+]", job.shown_id)[0] for job in found}
    if missing := [wanted for wanted, base in bases.items() if base not in known]:
        raise InputError(f"id: found {', '.join(missing)}, which accounting does not know")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from slurm.tracker.history import History, slurm_time

    history = History()
    count = history.sync(period(arguments.since) / DAY)
    total, first = history.connection.execute("SELECT count(*), min(submit) FROM attempts").fetchone()
    oldest = "" if first is None else f", the oldest from {slurm_time(first)} UTC"
    print(f"{history.path}: {count} attempts read, {total} known{oldest}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from slurm.tracker import report, summary

    now = time.time()
    begin = now - period(arguments.since)
    if not arguments.html.absolute().parent.is_dir():
        raise InputError(f"--html: the folder {arguments.html.absolute().parent} does not exist")
    history, failure = _synced_history((now - begin) / DAY)
    try:
        picture = poll.picture()
        nodes, runaways = picture.nodes, history.runaways(picture)
    except Unreachable:
        nodes, runaways = [], []
    rates = Rates(arguments.sites)
    found = summary.summarize(history, rates, begin, now, runaways)
    page = report.page(found, rates, nodes, failure)
    _write_or_refuse("--html", arguments.html, page, 0o600)
    print(f"{arguments.html}: written{', with stale figures' if failure else ''}")
    return 0


def _write_or_refuse(key: str, path: Path, content: str, mode: int) -> None:
    try:
        files.write(path, content, mode)
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be written ({error.strerror})") from error


def _budget(arguments: argparse.Namespace) -> int:
    from slurm.tracker import budget

    grants = dict(grant(text) for text in arguments.grant)
    if grants and arguments.since is None:
        raise InputError("--grant: needs --since, how long ago the grant began, as --since 26w")
    days = period(arguments.since or "30d") / DAY
    picture = poll.picture()
    history, failure = _synced_history(days)
    rates, now = Rates(arguments.sites), time.time()
    runaways = history.runaways(picture)
    found = budget.accounts(history, picture.jobs, rates, days, now)
    print(budget.text(found, rates, days, grants))
    if runaways:
        print(budget.runaway_line([one.shown_id for one in runaways]))
    if failure:
        print(_stale(history, failure))
    print(listing.mark(picture))
    return 0


def _metrics(arguments: argparse.Namespace) -> int:
    from slurm.tracker import metrics

    if arguments.port is not None:
        metrics.serve(arguments.port)
        return 0
    content, failure = metrics.text()
    if arguments.textfile:
        _write_or_refuse("--textfile", arguments.textfile, content, 0o644)
    else:
        print(content, end="")
    if failure:
        print(f"elm-queue: the figures are not fresh: {escaped(failure)}", file=sys.stderr)
    return 1 if failure else 0


def _top(arguments: argparse.Namespace) -> int:
    filters, rates = _filters_of(arguments), Rates(arguments.sites)
    if not arguments.plain:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise InputError("top: found no terminal; elm-queue list prints the queue once")
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


def _synced_history(days: float = 0) -> tuple[History, str | None]:
    """The history of at least so many days, brought up to date if accounting answers, and else why not."""
    from slurm.tracker.history import FIRST_DAYS, History

    history = History()
    failure = None
    try:
        history.sync(max(days, FIRST_DAYS))
    except Unreachable as error:
        if history.synced is None:
            raise
        failure = escaped(str(error))
    with suppress(Unreachable):
        history.learn(poll.picture().jobs)
    return history, failure


def _stale(history: History, failure: str) -> str:
    return f"STALE history: {span(time.time() - (history.synced or 0))} old, because {failure}"


COMMANDS = {
    "list": _list,
    "why": _why,
    "eta": _eta,
    "eff": _eff,
    "history": _history,
    "report": _report,
    "budget": _budget,
    "metrics": _metrics,
    "top": _top,
}

LONG_LIVED = frozenset({"metrics", "top"})

if __name__ == "__main__":
    main()
