"""The process that reads PDFs for another: ``python -m data_prep.pdf_child``.

It gets PDFs on stdin, each behind the number of its bytes and the most characters of text (two unsigned
integers of 8 bytes), and answers each on stdout with a JSON list of blocks or a reason, behind the number of
its bytes. A bomb or a crash ends this process and costs one work.
"""

from __future__ import annotations

import json
import resource
import struct
import sys

from data_prep.pdf_blocks import blocks_of_pages
from data_prep.pdf_lines import read_pages
from data_prep.raw import Unreadable

CANNOT = 3  # the exit status where no PDF can be read
MEMORY_BYTES = 2 << 30
SECONDS = 120  # of processor time for one PDF
HEADER, ANSWER = struct.Struct("<QQ"), struct.Struct("<Q")


def _limit(kind: int, value: int) -> None:
    """Set a limit for good, or keep a lower one; one more until SIGKILL leaves time for SIGXCPU."""
    hard = resource.getrlimit(kind)[1]
    most = value + 1 if hard == resource.RLIM_INFINITY else min(value + 1, hard)
    resource.setrlimit(kind, (min(value, most), most))


def answer(data: bytes, max_text: int) -> list[str] | str:
    """The blocks of a PDF, or the reason why it cannot be used."""
    try:
        return blocks_of_pages(read_pages(data, max_text)) or "no_text"
    except Unreadable as error:
        return error.reason
    except MemoryError:
        return "pdf_too_large"


def main() -> int:
    """Answer until stdin ends."""
    try:
        import pypdfium2  # noqa: F401
    except ImportError as error:
        sys.stderr.write(f"PDFs cannot be read here: {error}")
        return CANNOT
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, 0)  # nothing is written to any file
    while header := sys.stdin.buffer.read(HEADER.size):
        size, max_text = HEADER.unpack(header)
        data = sys.stdin.buffer.read(size)
        _allow_seconds()
        result = json.dumps(answer(data, max_text)).encode()
        sys.stdout.buffer.write(ANSWER.pack(len(result)) + result)
        sys.stdout.buffer.flush()
    return 0


def _allow_seconds() -> None:
    """Let this PDF take `SECONDS` from now, or less where the machine says so; then SIGXCPU ends it all."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = int(used.ru_utime + used.ru_stime) + SECONDS
    resource.setrlimit(
        resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


if __name__ == "__main__":
    sys.exit(main())
