"""PDF to blocks, in a process of its own that reads one after another.

A PDF is a program written by strangers. The child process (`pdf_child.py`) has a bound on memory and time, so
that a bomb or a crash costs one work and not the build; the next PDF gets a new child.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from conf.errors import InputError
from conf.schema.preprocess import MEGABYTE
from data_prep.pdf_child import ANSWER, CANNOT, HEADER, SECONDS
from data_prep.raw import Unreadable

COMMAND = (sys.executable, "-m", "data_prep.pdf_child")
ENDED = {signal.SIGKILL: "pdf_killed", signal.SIGXCPU: "pdf_too_slow"}  # the child, by a signal
MAX_TEXT = 10 * MEGABYTE
MOST_WORKS = 500  # that one child reads, for what a library may leak


def extract(data: bytes, max_text: int = MAX_TEXT, child: Child | None = None) -> list[str]:
    """The blocks of a PDF.

    Args:
        data: the file.
        max_text: characters after which the child stops reading.
        child: who reads it; this process' own when None.

    Raises:
        Unreadable: ``pdf_encrypted``, ``pdf_truncated``, ``pdf_damaged``, ``pdf_too_many_pages``,
            ``pdf_too_slow``, ``pdf_too_large`` (memory), ``pdf_killed`` (often for want of memory on the
            machine), ``text_too_long`` or ``no_text`` (scanned pages).
        InputError: no PDF can be read on this machine.
    """
    if b"%PDF-" not in data[:1024]:
        raise Unreadable("pdf_damaged")
    answer = (child or own_child(os.getpid())).read(data, max_text)
    if isinstance(answer, str):
        raise Unreadable(answer)
    return answer


@lru_cache(1)
def own_child(pid: int) -> Child:
    """The child of this process, whose number is the argument: after a fork there is another one."""
    child = Child()
    atexit.register(child.close)
    return child


class Child:
    """A process that reads PDFs; started when there is one to read, and again when it has ended."""

    def __init__(self, command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> None:
        """Start nothing yet.

        Args:
            command: what to start.
            seconds: that it may take for one PDF.
        """
        self._command, self._seconds = command, seconds
        self._process: subprocess.Popen | None = None
        self._works = 0

    def read(self, data: bytes, max_text: int) -> list[str] | str:
        """The blocks of a PDF, or the reason why it cannot be used."""
        if self._process is None:
            self._start()
        try:
            answer = self._ask(HEADER.pack(len(data), max_text) + data)
        except TimeoutError:
            self.close()
            return "pdf_too_slow"
        except (BrokenPipeError, EOFError):
            return self._why_ended()
        self._works += 1
        if answer == "pdf_too_large" or self._works >= MOST_WORKS:
            self.close()
        return answer

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the child
        self._works = 0
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def _ask(self, question: bytes) -> list[str] | str:
        assert self._process and self._process.stdin and self._process.stdout
        self._process.stdin.write(question)
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(self._seconds):
                raise TimeoutError
        header = self._process.stdout.read(ANSWER.size)
        if len(header) < ANSWER.size:
            raise EOFError
        size = ANSWER.unpack(header)[0]
        answer = self._process.stdout.read(size)
        if len(answer) < size:
            raise EOFError
        return json.loads(answer)

    def _why_ended(self) -> str:
        """The reason for which the child ended."""
        assert self._process
        status = self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace").strip()
        self.close()
        if status == CANNOT:
            raise InputError(errors)
        return "pdf_too_large" if "MemoryError" in errors else ENDED.get(-status, "pdf_damaged")

    def close(self) -> None:
        """End the child, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()
        self._process.wait()
        self._process = None
        self._errors.close()
