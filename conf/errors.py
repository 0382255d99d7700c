"""Wrong input and how it is said: a sentence that names the key or file, what was found, what is allowed."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # as a shell reports SIGPIPE


class InputError(Exception):
    """Something the user gave is wrong; the message is one sentence that names it and what is allowed.

    Launchers print the message without a traceback and exit with status 2. Anything else that is raised is a
    fault of this software and keeps its traceback.
    """


def require(condition: bool, message: str) -> None:
    """Raise InputError(message) unless the condition holds."""
    if not condition:
        raise InputError(message)


def unknown(key: str, allowed: Iterable[str]) -> InputError:
    """The refusal of a key that does not exist, with the nearest name and all the names of its level."""
    parent, _, name = key.rpartition(".")
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {join(parent, near[0])}? " if near else ""
    level = f" under {parent}" if parent else ""
    return InputError(f"unknown key {key}: {hint}Allowed{level}: {', '.join(allowed)}.")


def join(parent: str, name: str) -> str:
    """Dotted key of `name` under `parent`."""
    return f"{parent}.{name}" if parent else name


def shown(value: object) -> str:
    """A value as YAML writes it, on one line and at most 60 characters long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def divisors(n: int) -> str:
    """The divisors of n as text: divisors(4) == '1, 2, 4'."""
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)


def disk_full(error: OSError) -> bool:
    """Whether it says that a disk is full, or somebody's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
