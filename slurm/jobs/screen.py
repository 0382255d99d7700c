"""What a launcher prints while ranks run. No output is worth a rank: a lost screen is given up for good.

A pipe whose reader ended, a closed terminal and a full disk all end in an OSError at a print. The stream then
leads to /dev/null, so that neither a later print nor the interpreter's last flush fails again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line.

    Args:
        text: the line.
        stream: standard output by default.
    """
    target = sys.stdout if stream is None else stream
    try:
        print(text, file=target, flush=True)
    except UnicodeEncodeError:
        say(text.encode("ascii", "replace").decode(), target)
    except (OSError, ValueError):  # ValueError: it is closed
        _give_up(target)


def warn(text: str) -> None:
    """Print a line on standard error."""
    say(text, sys.stderr)


def _give_up(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
