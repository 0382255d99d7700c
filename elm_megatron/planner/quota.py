"""What a person may still write on a file system, as its own tools say: `lfs quota` and `quota`. Torch-free.

A tool that is not there, or does not answer, says nothing. What the disk itself has free, storage.py asks.
"""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0  # that a tool may take
KIB = 1024
MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True)
class Left:
    """What is left of one quota; None where it has no limit.

    Attributes:
        bytes: left to write.
        files: left to make.
        basis: which quota, for people.
    """

    bytes: int | None
    files: int | None
    basis: str


def left(folder: Path) -> list[Left]:
    """The quotas that count for a folder that exists."""
    found = []
    if shutil.which("lfs"):
        for flag, name in (("-u", _user()), ("-g", _group())):
            words = _run(["lfs", "quota", "-q", flag, name, str(folder)]).split()
            found += [_left(words[at + 1 : at + 9], f"lfs quota {flag} {name}") for at in _lines(words)]
    elif shutil.which("quota"):
        device = _device(folder)
        text = _run(["quota", "-w", "-p", "--show-mntpoint", "--hide-device"])
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 9 and words[0] in device:
                found.append(_left(words[1:9], f"quota of {words[0]}"))
    return [one for one in found if one is not None]


def _lines(words: list[str]) -> list[int]:
    """Where in lfs's words the line of a file system begins; a long name has its numbers on the next line."""
    return [at for at, word in enumerate(words) if word.startswith("/") and len(words) >= at + 9][:1]


def _left(words: list[str], basis: str) -> Left | None:
    """What eight columns say: blocks, quota, limit, grace, files, quota, limit, grace."""
    try:
        blocks, files = _rest(words[0:3], KIB), _rest(words[4:7], 1)
    except ValueError:
        return None
    return None if blocks is None and files is None else Left(blocks, files, basis)


def _rest(words: list[str], unit: int) -> int | None:
    """Used, soft and hard limit as what is left of the smaller limit; a limit of 0 is none."""
    used, soft, hard = (int(word.strip("*[]")) for word in words)
    limits = [limit for limit in (soft, hard) if limit]
    return max(0, min(limits) - used) * unit if limits else None


def _device(folder: Path) -> set[str]:
    """The mount point of a folder, and its device."""
    best: list[str] = []
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        words = line.split()
        point = Path(words[1].replace("\\040", " "))
        inside = folder == point or point in folder.parents
        if inside and (not best or len(words[1]) >= len(best[1])):
            best = words[:2]
    return set(best)


def _run(command: list[str]) -> str:
    """What a tool prints; nothing where it fails. quota ends with 1 where a limit is exceeded."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _group() -> str:
    try:
        return grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        return str(os.getgid())
