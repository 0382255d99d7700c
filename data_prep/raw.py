"""The folder of raw works: which files are works, and their bytes, trusted for nothing."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from conf.errors import InputError
from conf.schema.preprocess import MEGABYTE, CorpusConfig
from data_prep.journal import HARVESTED, RECORDS_FILE, read_journal

SUFFIX = re.compile(r"[a-z0-9]{1,5}")  # what follows the last dot of any other name may be a person's
OWN_FILES = (RECORDS_FILE, "harvest.json", "tombstones.jsonl", "tombstones.jsonl.tmp")
WHY = {  # reasons that a sentence must spell out
    "not_utf8": "it is not UTF-8 text",
    "binary": "it holds NUL bytes, so it is not text",
    "text_too_long": "it holds more text than corpus.max_text_mb",
    "file_too_large": "it is larger than corpus.max_file_mb",
    "file_missing": "the harvest kept it, but the file is gone",
    "no_record": "the harvest has no record of it",
    "same_id": "another file has the same name before the suffix",
    "strange_name": "its name holds signs that cannot be printed",
    "symbolic_link": "it is a symbolic link",
    "not_a_file": "it is no regular file",
    "pdf_encrypted": "the PDF is encrypted",
    "pdf_damaged": "the PDF is damaged",
    "cannot_be_opened": "it cannot be opened",
}


class Unreadable(Exception):
    """A work that cannot be used.

    Attributes:
        reason: a short word with underscores; the message too.
        stage: where the work was dropped, ``read`` or ``clean``.
        blocks: blocks of the work, as far as it was read.
    """

    def __init__(self, reason: str, stage: str = "read", blocks: int = 0) -> None:
        """The message of the exception is the reason."""
        super().__init__(reason)
        self.reason, self.stage, self.blocks = reason, stage, blocks


@dataclass(frozen=True)
class Work:
    """One raw file and what is known about it before it is opened.

    Attributes:
        id: the file's path in the corpus folder without its suffix, or the harvest's id.
        path: relative to the corpus folder, with forward slashes.
        size: bytes.
        mtime: modification time in nanoseconds.
        record: the harvest's record of it, or empty.
    """

    id: str
    path: str
    size: int
    mtime: int
    record: dict = field(default_factory=dict)


@dataclass
class Scan:
    """What a corpus folder holds.

    Attributes:
        works: in canonical order.
        rejected: (id, reason) of files set aside.
        refused: (id, reason) of records that the harvest did not keep.
        ignored: other files, by suffix.
    """

    works: list[Work]
    rejected: list[tuple[str, str]]
    refused: list[tuple[str, str]]
    ignored: Counter[str]

    def ids(self) -> list[str]:
        """Of every work and record that came in."""
        return [work.id for work in self.works] + [item for item, _ in self.rejected + self.refused]


def scan(corpus: CorpusConfig, taken_down: frozenset[str] = frozenset()) -> Scan:
    """List a corpus folder without opening works. Links are never followed.

    Args:
        corpus: the folder and what counts as a work in it.
        taken_down: ids of works whose files are gone for that reason.

    Raises:
        InputError: the folder is missing, is no folder, cannot be listed, or holds no work; or a file would
            be set aside and ``corpus.quarantine`` is false.
    """
    root = _existing_folder(corpus)
    journal = read_journal(root)
    records = {entry["file"]: entry for entry in journal.values() if entry["status"] == "kept"}
    refused = [
        (entry["id"], str(entry.get("reason", ""))) for entry in journal.values() if entry["status"] != "kept"
    ]
    works, rejected, ignored = [], [], Counter()

    def set_aside(identifier: str, path: str, reason: str) -> None:
        if not corpus.quarantine and reason != "taken_down":
            raise cannot_be_used(corpus, path, reason)
        rejected.append((_shown(identifier), reason))

    found = files(root)
    gone = [(path, None) for path in sorted(records.keys() - {path for path, _ in found})]
    for path, info in [*found, *gone]:
        suffix = Path(path).suffix.lower().removeprefix(".")
        if path in OWN_FILES:
            continue
        if suffix not in corpus.formats:
            ignored[f".{suffix}" if SUFFIX.fullmatch(suffix) else "other"] += 1
            continue
        record = records.get(path, {})
        identifier = str(record.get("id") or path[: -len(suffix) - 1])
        if not _printable(identifier):
            set_aside(identifier, path, "strange_name")
        elif info is None:
            set_aside(identifier, path, "taken_down" if identifier in taken_down else "file_missing")
        elif stat.S_ISLNK(info.st_mode):
            set_aside(identifier, path, "symbolic_link")
        elif not stat.S_ISREG(info.st_mode):
            set_aside(identifier, path, "not_a_file")
        elif journal and not record and path.startswith(HARVESTED):
            set_aside(identifier, path, "no_record")  # of a killed harvest: where it is from is unknown
        elif info.st_size > corpus.max_file_mb * MEGABYTE:
            set_aside(identifier, path, "file_too_large")
        else:
            works.append(Work(identifier, path, info.st_size, info.st_mtime_ns, record))
    works, twice = _unique(works)
    for work in twice:
        set_aside(f"{work.id} ({work.path})", work.path, "same_id")
    if not (works or rejected or refused):
        kinds = " or ".join(f".{item}" for item in corpus.formats)
        raise InputError(f"corpus.path={corpus.path}: {root} holds no work, that is no {kinds} file.")
    return Scan(works, rejected, refused, ignored)


def _existing_folder(corpus: CorpusConfig) -> Path:
    root = corpus.folder()
    if not root.exists():
        raise InputError(f"corpus.path={corpus.path}: {root} does not exist; give a folder of raw works.")
    if not root.is_dir():
        raise InputError(
            f"corpus.path={corpus.path}: {root} is a file; give the folder that holds the works."
        )
    return root


def cannot_be_used(corpus: CorpusConfig, path: str, reason: str) -> InputError:
    """What a build says that stops at a file instead of setting it aside."""
    return InputError(
        f"corpus.path={corpus.path}: {_shown(path)} cannot be used ({WHY.get(reason, reason)}); "
        "repair or remove it, or set corpus.quarantine=true to go on without it."
    )


def files(root: Path) -> list[tuple[str, os.stat_result]]:
    """(relative path, lstat) of everything below `root` that is not a folder or hidden, in order of name."""
    found = []
    stack = [""]
    try:
        while stack:
            folder = stack.pop()
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(path + "/")
                    else:
                        found.append((path, entry.stat(follow_symlinks=False)))
    except OSError as error:
        raise InputError(f"corpus.path: {error.filename} cannot be read ({error.strerror}).") from error
    return sorted(found, key=lambda item: item[0])


def _printable(name: str) -> bool:
    """Whether a name can be written in UTF-8, on one line, without moving a terminal's cursor."""
    return name.isprintable() and not any(0xD800 <= ord(char) <= 0xDFFF for char in name)


def _shown(name: str) -> str:
    """A name as it may be printed and stored."""
    return name if _printable(name) else name.encode("unicode_escape").decode()


def _unique(works: list[Work]) -> tuple[list[Work], list[Work]]:
    """The first of works with one id (a.txt beside a.pdf) in canonical order, and the others.

    The text file comes first.
    """
    kept, twice, seen = [], [], set()
    for work in sorted(works, key=lambda work: (work.id, not work.path.endswith(".txt"))):
        if work.id in seen:
            twice.append(work)
        else:
            seen.add(work.id)
            kept.append(work)
    return kept, twice


def read_bytes(root: Path, work: Work) -> bytes:
    """A work's bytes, refusing a link that took the file's place since the scan.

    Raises:
        Unreadable: it changed, vanished or may not be read.
    """
    try:
        handle = os.open(root / work.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unreadable("cannot_be_opened") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unreadable("not_a_file")
        data = file.read(work.size + 1)
    if len(data) != work.size:
        raise Unreadable("changed_while_reading")
    return data
