"""Slurm's ways of writing a time, an amount or nothing, turned into Python values.

Slurm has many words for "nothing" and they differ between releases, so every reader here takes them all.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

from conf import durations

# Words come again and again, and so do times: what fits a queue of ten thousand jobs is read once.
often = lru_cache(maxsize=65536)

EPOCH = datetime(1970, 1, 1)
SECOND = timedelta(seconds=1)

NOTHING = frozenset(
    {"", "(null)", "n/a", "none", "unknown", "not_set", "invalid", "unlimited", "partition_limit", "null"}
)


@often
def word(text: str) -> str:
    """The text without padding, or "" for any of Slurm's words for nothing."""
    text = text.strip()
    return "" if text.lower() in NOTHING else text


@often
def epoch(text: str) -> int | None:
    """UTC epoch seconds of `2026-11-22T21:24:40` (commands run with TZ=UTC), or None for nothing."""
    # Two naive times in UTC: their difference costs a third of a timestamp with a time zone.
    try:
        return (datetime.fromisoformat(text.strip()) - EPOCH) // SECOND
    except (ValueError, TypeError):
        return None


@often
def seconds(text: str) -> int | None:
    """Seconds of `D-HH:MM:SS`, `HH:MM:SS` or `MM:SS`, with or without a fraction; None for nothing."""
    return durations.seconds(text) if ":" in text else None


@often
def number(text: str) -> int | None:
    """The first whole number of the text (`4`, `4-8`, `4+0`), or None."""
    if text.isdecimal():
        return int(text)
    match = re.match(r"\s*(\d+)", text)
    return int(match[1]) if match else None


@often
def mebibytes(text: str) -> int | None:
    """MiB of `100M`, `1.5G`, `2048K`; a number without a unit is MiB already. None for nothing."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)[nc]?", word(text))
    if not match:
        return None
    factor = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}[match[2]]
    return round(float(match[1]) * factor)


def kibibytes(text: str) -> int | None:
    """KiB of a memory figure of a step, where a number without a unit is bytes (`1234K`, `0`)."""
    text = word(text)
    if text.isdigit():
        return int(text) // 1024
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP])", text)
    if not found:
        return None
    return round(float(found[1]) * 1024 ** "KMGTP".index(found[2]))


def tres(text: str) -> dict[str, str]:
    """`cpu=1,mem=100M,gres/gpu=2` as a dict."""
    pairs = (entry.partition("=") for entry in word(text).split(",") if "=" in entry)
    return {name.strip(): value.strip() for name, _, value in pairs}


@often
def gpus_of_tres(text: str) -> int | None:
    """GPUs in a TRES list; None when the list is empty, so that nothing is known.

    Newer releases list the untyped total and each type, older ones only what the site tracks: the total wins,
    otherwise the types are added up.
    """
    entries = tres(text)
    if not entries:
        return None
    if "gres/gpu" in entries:
        return number(entries["gres/gpu"]) or 0
    return sum(number(value) or 0 for name, value in entries.items() if name.startswith("gres/gpu:"))


@often
def gpus_of_gres(text: str) -> int:
    """GPUs in a GRES request or a node's list: `gpu:h100:4`, `gres:gpu:2`, `gres/gpu:2(IDX:0-1)`, `gpu`."""
    total = 0
    for entry in re.sub(r"\([^)]*\)", "", word(text)).split(","):
        parts = re.sub(r"^gres[:/]", "", entry.strip()).replace("=", ":").split(":")
        if parts[0] == "gpu":
            total += int(parts[-1]) if parts[-1].isdigit() else 1
    return total


@often
def array_tasks(text: str) -> int:
    """How many tasks an array expression holds: `3-5%2` is 3, `1,7-9` is 4, `0-8:4` is 3, `N/A` is 1."""
    total = 0
    for part in word(text).partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if match:
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            total += (last - first) // step + 1
    return max(1, total)


def host_names(text: str) -> list[str]:
    """`n[1-3,7],gpu01` as single names; a range wider than 100,000 hosts is left as it is written."""
    names: list[str] = []
    for entry in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", word(text)):
        match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", entry)
        if not match:
            names.append(entry)
            continue
        head, inside, tail = match.groups()
        for part in inside.split(","):
            first, _, last = part.partition("-")
            last = last or first
            if not (first.isdigit() and last.isdigit()) or int(last) - int(first) > 100_000:
                names.append(entry)
                continue
            numbers = range(int(first), int(last) + 1)
            names += [f"{head}{value:0{len(first)}d}{tail}" for value in numbers]
    return names


def pairs(text: str) -> dict[str, str]:
    """`Name=value` pairs of one line of scontrol, for things that admins name."""
    return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)
