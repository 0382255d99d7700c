"""The queue tracker: `elm-queue COMMAND` or `python -m slurm.tracker COMMAND`.

Reads squeue, sinfo and sacct; needs no root and no daemon. Everyone who asks within thirty seconds shares one
answer of Slurm's (`poll.py`).
"""

import argparse
import os
import sys
from pathlib import Path

from data_prep.errors import InputError
from slurm.tracker import listing, poll, why
from slurm.tracker.command import Unreachable
from slurm.tracker.poll import Picture
from slurm.tracker.rates import SITES, Rates
from slurm.tracker.squeue import Job


def main() -> None:
    """Runs one command: exit status 1 when Slurm does not answer, 2 for wrong input."""
    arguments = parser().parse_args()
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
    one.add_argument("id", help="job id as shown by list, as 4711 or 4711_3")
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


def why_(arguments: argparse.Namespace) -> int:
    picture = poll.picture()
    job = find(picture, arguments.id)
    print(why.text(job, why.explain(job, picture)))
    if picture.failure:
        print(listing.mark(picture))
    return 0


def find(picture: Picture, wanted: str) -> Job:
    """The job with this id; an array's own id, or the id of a waiting task, finds the array's line."""
    base, _, task = wanted.partition("_")
    if not base.isdigit() or (task and not task.isdigit()):
        raise InputError(f"id: found {wanted!r}; allowed are a job id or id_task, as 4711 or 4711_3")
    exact = [job for job in picture.jobs if wanted in (job.shown_id, str(job.job_id))]
    family = [job for job in picture.jobs if job.array_id == int(base)]
    found = exact or [job for job in family if job.pending] or family
    if not found:
        when = "now" if picture.failure is None else f"as of {picture.age:.0f} s ago"
        raise InputError(
            f"id: found {wanted}, which neither waits nor runs {when}; try elm-queue eff {wanted}"
        )
    return found[0]


COMMANDS = {"list": list_, "why": why_}

if __name__ == "__main__":
    main()
