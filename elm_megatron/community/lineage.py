"""Where a contribution went: the exports that have it, the runs tuned on them, and what was made of those."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from data_prep import files
from elm_megatron.community.exports import MANIFEST, WITHDRAWN


def used_in(exports: Path, runs: Path, names: Iterable[str]) -> list[Path]:
    """Folders that were made with any of these items or votes, each after what it was made of.

    Args:
        exports: folder of the exports.
        runs: folder of the runs.
        names: as exports call them, `item 7` or `vote 3`.
    """
    wanted = set(names)
    found = [
        path.parent
        for path in sorted(exports.glob(f"*/{MANIFEST}"))
        if wanted & set((_read(path, json.loads) or {}).get("items") or [])
    ]
    known = list(_configs(runs))
    grew = True
    while grew:
        grew = False
        for run, config in known:
            if run not in found and _reads(config, run, found):
                found.append(run)
                grew = True
    return found


def note_withdrawn(exports: Path, names: Iterable[str]) -> None:
    """Leave a list beside each export of what was taken back since; cards of its models say how many."""
    wanted = set(names)
    for path in sorted(exports.glob(f"*/{MANIFEST}")):
        gone = wanted & set((_read(path, json.loads) or {}).get("items") or [])
        if not gone:
            continue
        beside = path.with_name(WITHDRAWN)
        known = (_read(beside, json.loads) or {}).get("items") or [] if beside.exists() else []
        files.write(beside, json.dumps({"items": sorted({*known, *gone})}) + "\n")


def _configs(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(runs.glob("*/config.yaml")):
        if (config := _read(path, yaml.safe_load)) is not None:
            yield path.parent, config


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any] | None:
    """What a file holds; None where it cannot be read, which is said and stops nothing."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        print(f"note: {path} cannot be read ({reason}): look at it yourself", file=sys.stderr, flush=True)
        return None
    return found if isinstance(found, dict) else None


def _group(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _reads(config: dict[str, Any], run: Path, found: list[Path]) -> bool:
    """Whether a run's settings name one of these folders, or a run in them."""
    sources = config.get("source") or []
    read = [str(one) for one in (sources if isinstance(sources, list) else [sources])]
    loop = _group(config, "train") or _group(config, "tune")
    read += [str(one) for one in (loop.get("init_from"),) if one]
    for group in ("sft", "dpo"):
        for key in ("files", "valid_files"):
            read += [str(one) for one in _group(config, group).get(key) or []]
    for one in read:
        name = one.partition("@")[0]
        places = [Path(name).absolute(), (run.parent / name).absolute()]
        if any(
            place == folder.absolute() or folder.absolute() in place.parents
            for place in places
            for folder in found
        ):
            return True
    return False
