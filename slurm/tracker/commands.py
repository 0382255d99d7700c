"""What each command of elm-queue besides `list` does: one function each, which returns the exit status."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from conf.errors import InputError
from data_prep import files
from slurm.tracker import (
    actions,
    budget,
    efficiency,
    eta,
    follow,
    listing,
    node_list,
    notify,
    poll,
    priority,
    status,
    why,
)
from slurm.tracker import reservations as reservations_
from slurm.tracker.arguments import DAY, filters_of, grant, period, states
from slurm.tracker.command import Unreachable
from slurm.tracker.history import FIRST_DAYS, History, slurm_time
from slurm.tracker.rates import Rates
from slurm.tracker.runs import progress_of
from slurm.tracker.show import escaped, span
from slurm.tracker.targets import ID, check_id, find_job, resolve


def _why(arguments: argparse.Namespace) -> int:
    picture = poll.picture()
    job = find_job(picture, arguments.id)
    print(why.text(job, why.explain(job, picture)))
    print(listing.mark(picture))
    return 0


def _eta(arguments: argparse.Namespace) -> int:
    picture = poll.picture()
    job = find_job(picture, arguments.id)
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


def _priority(arguments: argparse.Namespace) -> int:
    picture = poll.picture()
    found = priority.facts(find_job(picture, arguments.id))
    print(priority.json_text(found) if arguments.json else priority.text(found))
    return 0


def _nodes(arguments: argparse.Namespace) -> int:
    picture = poll.picture()
    found = node_list.chosen(picture.nodes, arguments.partition, arguments.closed)
    coming = reservations_.read()
    if arguments.json:
        print(node_list.json_text(found, coming))
    else:
        print(node_list.text(found, coming, picture.taken))
        print(listing.mark(picture))
    return 0


# ---- one run


def _status(arguments: argparse.Namespace) -> int:
    picture = poll.picture()
    found = status.facts(resolve(picture, arguments.run), picture)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else status.text(found))
    return 0


def _log(arguments: argparse.Namespace) -> int:
    target = resolve(poll.picture(), arguments.run)
    live = target.job is not None and not arguments.no_follow

    def in_the_queue() -> bool:
        with suppress(Unreachable, InputError):
            return resolve(poll.picture(), arguments.run).job is not None
        return True

    follow.show(follow.path_of(target), arguments.lines, in_the_queue if live else None)
    return 0


def _save(arguments: argparse.Namespace) -> int:
    print(actions.save(resolve(_newest(), arguments.run)))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    print(actions.stop(resolve(_newest(), arguments.run)))
    return 0


def _newest() -> poll.Picture:
    """The queue as it is now; an empty one where no Slurm answers: a run on this machine can be asked too."""
    try:
        return poll.picture(oldest=0)
    except Unreachable:
        return poll.Picture([], [], time.time(), 0.0)


def _cancel(arguments: argparse.Namespace) -> int:
    print(actions.cancel(resolve(poll.picture(oldest=0), arguments.run)))
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    print(actions.retry(resolve(poll.picture(oldest=0), arguments.run), arguments.without))
    return 0


# ---- accounting


def _eff(arguments: argparse.Namespace) -> int:
    wanted = [*arguments.ids, *(_ids_of(arguments.file) if arguments.file else [])]
    ids = [job_id for text in wanted for job_id in ([text] if ID.fullmatch(text) else _jobs_of(text))]
    bases = {one: check_id(one) for one in ids}
    if wanted:
        found = efficiency.measure("-j", ",".join(bases))
    else:
        now = time.time()
        # sacct leaves out a job of this very second where no end is given.
        moments = ("-S", slurm_time(now - period(arguments.since)), "-E", slurm_time(now + 60))
        found = efficiency.measure(*moments, *_whose(arguments))
        found = [job for job in found if job.state != "PENDING"]
    chosen = states(arguments.state, ended=True)
    shown = [job for job in found if not chosen or job.state in chosen.split(",")]
    if arguments.json:
        print(efficiency.json_text(shown))
    elif arguments.csv:
        print(efficiency.csv_list(shown), end="")
    elif shown:
        print(efficiency.text(shown))
    elif not wanted:
        print(f"no such job of {arguments.user or listing.me()} ran since {arguments.since}")
    known = {re.split(r"[_+]", job.shown_id)[0] for job in found}
    if missing := [one for one, base in bases.items() if base not in known]:
        raise InputError(f"id: found {', '.join(missing)}, which accounting does not know")
    return 0


def _whose(arguments: argparse.Namespace) -> list[str]:
    return ["--allusers"] if arguments.user == "all" else ["--user", arguments.user or listing.me()]


def _ids_of(path: Path) -> list[str]:
    """The job ids of a file: one a line, also in names of logs as slurm-4711.out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--file: {path} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    found = [
        match[1] for line in lines if (match := re.match(r"\s*(?:\S*/)?(?:slurm-)?(\d+(?:[_+]\d+)?)\b", line))
    ]
    if not found:
        raise InputError(f"--file: {path} names no job id")
    return found


def _jobs_of(text: str) -> list[str]:
    """The ids of a run's jobs."""
    target = resolve(poll.picture(), text)
    if not target.job_ids:
        raise InputError(f"run: {text} has no Slurm job")
    return target.job_ids


def _history(arguments: argparse.Namespace) -> int:
    history = History()
    count = history.sync(period(arguments.since) / DAY)
    total, first = history.connection.execute("SELECT count(*), min(submit) FROM attempts").fetchone()
    oldest = "" if first is None else f", the oldest from {slurm_time(first)} UTC"
    print(f"{history.path or 'in memory'}: {count} attempts read, {total} known{oldest}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from slurm.tracker import report, summary  # numpy

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


def _budget(arguments: argparse.Namespace) -> int:
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


def _notify(arguments: argparse.Namespace) -> int:
    """Silent when there is nothing to tell, so that cron mails nothing."""
    done = notify.pending(Path(arguments.runs))
    for what, listed in (("sent", done.sent), ("stalled", done.stalled), ("could not be sent", done.left)):
        if listed:
            print(f"{what}: {', '.join(listed)}", file=sys.stderr if listed is done.left else sys.stdout)
    return int(bool(done.left))


def _top(arguments: argparse.Namespace) -> int:
    filters, rates = filters_of(arguments), Rates(arguments.sites)
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
    history, failure = History(), None
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


def _write_or_refuse(key: str, path: Path, content: str, mode: int) -> None:
    try:
        files.write(path, content, mode)
        path.chmod(mode)  # others read it, whatever the umask of who writes
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be written ({error.strerror})") from error


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "why": _why,
    "eta": _eta,
    "priority": _priority,
    "nodes": _nodes,
    "status": _status,
    "log": _log,
    "save": _save,
    "stop": _stop,
    "cancel": _cancel,
    "retry": _retry,
    "eff": _eff,
    "history": _history,
    "report": _report,
    "budget": _budget,
    "metrics": _metrics,
    "notify": _notify,
    "top": _top,
}
