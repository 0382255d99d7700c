"""How a command starts and ends: private files, UTF-8, and an exit status that tells the truth."""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
from collections.abc import Callable

from conf.errors import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_PIPE, InputError

PLAINER = "elm-plainer"
AGAIN = "ELM_STARTED_AGAIN"  # keeps a Python that has no UTF-8 mode from starting for ever


def guarded(function: Callable[[], int | None]) -> int:
    """Call `function` under this suite's rules for umask, encoding and exit status; returns that status."""
    os.umask(0o077)  # data and runs are private
    in_utf8()
    try:
        status = function() or 0
        sys.stdout.flush()
        return status
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:  # `| head` has seen enough; nothing more can be printed, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}.", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def in_utf8() -> None:
    """Make this process, and those it starts, read and write UTF-8 whatever the locale is.

    Names of files and arguments are bytes that Python decodes by the locale before any of our code runs, so
    in another locale the command starts itself again in Python's UTF-8 mode (PEP 540). What the terminal
    cannot show is written plainer; nothing fails over it.
    """
    codecs.register_error(PLAINER, plainer)
    again = os.environ.pop(AGAIN, None)
    if sys.getfilesystemencoding().lower() != "utf-8" and again is None:
        os.environ[AGAIN] = os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ["PYTHONUTF8"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=locale.getencoding() if again else None, errors=PLAINER)


def plainer(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding does not have (PEP 293).

    Frames of tables become `+`, `-` and `|`, arrows and dots ASCII, other characters Python's escapes.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_plain(char) for char in error.object[error.start : error.end]), error.end


def _plain(char: str) -> str:
    known = (
        dict.fromkeys("─━═", "-") | dict.fromkeys("│┃║", "|") | {"→": "->", "…": "...", "·": ".", "×": "x"}
    )
    if char in known or not "\u2500" <= char <= "\u257f":
        return known.get(char, char.encode("ascii", "backslashreplace").decode())
    return "+"
