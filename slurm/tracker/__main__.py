"""The queue tracker: `elm-queue COMMAND` or `python -m slurm.tracker COMMAND`.

Reads squeue, sinfo and sacct; needs no root and no daemon. Everyone who asks within thirty seconds shares one
answer of Slurm's (`poll.py`). `list` is here, because it starts quickly without the other commands, which are
in `commands.py`.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys

from conf.errors import InputError
from slurm.tracker import listing, poll
from slurm.tracker.arguments import filters_of, parser
from slurm.tracker.command import Unreachable
from slurm.tracker.rates import Rates

LONG_LIVED = frozenset({"metrics", "top", "log"})


def main() -> None:
    """Run one command: exit status 1 when Slurm does not answer, 2 for wrong input."""
    arguments = parser().parse_args()
    if arguments.cluster:
        os.environ["SLURM_CLUSTERS"] = arguments.cluster
    if arguments.command not in LONG_LIVED:
        # The process ends with its answer: looking for garbage among a million jobs only takes time.
        gc.disable()
    try:
        sys.exit(_run(arguments))
    except (InputError, Unreachable) as error:
        print(f"elm-queue: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        # `elm-queue list | head` is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "list":
        return _list(arguments)
    from slurm.tracker.commands import COMMANDS  # they import what a list does not need

    return COMMANDS[arguments.command](arguments)


def _list(arguments: argparse.Namespace) -> int:
    picture, rates = poll.picture(), Rates(arguments.sites)
    found = listing.rows(picture, filters_of(arguments), rates)
    if arguments.json:
        print(listing.json_text(found, picture))
    elif arguments.csv:
        print(listing.csv_list(found, picture), end="")
    else:
        print(listing.text(found, rates, picture))
    return 0


if __name__ == "__main__":
    main()
