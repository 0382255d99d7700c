"""Running Slurm's own commands and cutting their text into records.

Text with explicit fields works on every release, where the JSON changes its shape. A job's name may hold any
character, so fields are separated by a word that is new for each call and that no user can guess.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

DROPPED = ("SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT", "SLURM_BITSTR_LEN", "LC_", "LANG", "TZ")


class Unreachable(Exception):
    """Slurm gave no answer; the text is one line of what it said instead."""


def separator() -> str:
    """A field separator no name can hold: a random word, new for each question.

    Between two signs that are no digits, because squeue takes digits for a field's width. It is short: a
    queue of ten thousand jobs has 300,000 of them.
    """
    return f"~{base64.urlsafe_b64encode(os.urandom(6)).decode()}~"


def environment() -> dict[str, str]:
    """The environment for Slurm's commands: UTC, plain UTF-8, none of the user's format habits."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    fixed = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}
    return kept | fixed


def run(argv: Sequence[str], timeout: float = 60) -> str:
    """The standard output of a Slurm command.

    Raises:
        Unreachable: the command is missing, failed, or took longer than `timeout` seconds.
    """
    config = os.environ.get("SLURM_CONF")
    if config and not Path(config).exists():
        # Slurm's commands would wait a minute for it.
        raise Unreachable(f"SLURM_CONF names {config}, which does not exist")
    try:
        # Into memory at once: a pipe would wake this process for every four kilobytes of a long queue.
        with os.fdopen(os.memfd_create(argv[0]), "w+b") as output:
            result = subprocess.run(
                argv,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                timeout=timeout,
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
    except FileNotFoundError:
        raise Unreachable(f"{argv[0]} is not installed here") from None
    except OSError as error:
        raise Unreachable(f"{argv[0]} cannot be run here ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{argv[0]} gave no answer within {timeout:.0f} s") from None
    if result.returncode != 0:
        said = _complaint(result.stderr.decode(errors="replace")) or f"exit status {result.returncode}"
        raise Unreachable(f"{argv[0]}: {said}")
    return text


@cache
def cluster_name() -> str:
    """The cluster that Slurm's commands speak to by default, "" when it does not say."""
    try:
        text = run(["scontrol", "show", "config"])
    except Unreachable:
        return ""
    found = re.search(r"^ClusterName\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _complaint(stderr: str) -> str:
    """The last two lines of what a Slurm command says of its failure: the cause and the consequence."""
    lines = (re.sub(r"^\w+: (error: |fatal: )?", "", line) for line in stderr.strip().splitlines())
    return "; ".join(list(dict.fromkeys(filter(None, lines)))[-2:])


def records(text: str, separator: str, width: int) -> list[tuple[str, ...]]:
    """Cut text of `width` fields a record, each ended by `separator` and each record by a newline.

    Newlines inside a field are kept; a last record that was cut off is left out.
    """
    return list(zip(*columns(text, separator, width), strict=True))


def columns(text: str, separator: str, width: int) -> list[list[str]]:
    """The same as `records`, but one list for each field."""
    fields = text.split(separator)
    whole = len(fields) // width * width
    found = [fields[start:whole:width] for start in range(width)]
    # The newline that ends a record stands before the next one's first field.
    found[0][1:] = [first.removeprefix("\n") for first in found[0][1:]]
    return found
