"""The points of a sweep (`-m`): what each is called, and that no two of them write one place. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from data_prep.config import PreprocessConfig
from data_prep.errors import InputError
from data_prep.manifest import Manifest
from data_prep.settings import deciding
from elm_megatron.run_folder import write_atomically

NEVER_NAMED = ("run.name", "run.dir", "dry_run")
# What a name takes only where it tells two points apart: mostly the default name holds it already, or it does
# not change what is learnt.
UNNAMED = (*NEVER_NAMED, "model", "corpus", "corpus.name", "corpus.path", "cluster", "cluster.slurm_conf")
UNNAMED += ("cluster.account", "cluster.partition", "cluster.time", "cluster.qos")


@dataclass
class Point:
    """One point.

    Attributes:
        config: as Hydra composed it.
        own: its overrides, values as text by their keys.
    """

    config: DictConfig
    own: dict[str, str]

    @classmethod
    def of(cls, config: DictConfig, overrides: Sequence[str]) -> Point:
        """A point out of what Hydra tells of it."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return cls(config, {override.key_or_group: _value_text(override) for override in parsed})

    def parts(self, keys: set[str]) -> list[str]:
        """Those of its overrides whose key is in `keys`, sorted."""
        return sorted(f"{key}={value}" for key, value in self.own.items() if key in keys)


def varying(points: Sequence[Point]) -> set[str]:
    """The keys whose value is not the same in all points."""
    keys = {key for point in points for key in point.own}
    return {key for key in keys if len({point.own.get(key) for point in points}) > 1}


def name(points: Sequence[Point]) -> None:
    """Add to the run.name of each point the overrides that set it apart."""
    bases = [point.config.run.name for point in points]
    keys = {key for point in points for key in point.own}

    def names(named: set[str]) -> list[str]:
        return [base + suffix(point.parts(named)) for base, point in zip(bases, points, strict=True)]

    found = names(keys.difference(UNNAMED))
    if len(set(found)) < len(found):
        found = names(keys.difference(UNNAMED) | varying(points).difference(NEVER_NAMED))
    for point, text in zip(points, found, strict=True):
        point.config.run.name = text


def suffix(parts: Sequence[str]) -> str:
    """What a point adds to run.name, in letters fit for a folder and a job.

    A long one is cut and ends in a hash of the whole.
    """
    text = "".join("-" + re.sub(r"[^A-Za-z0-9._=+-]", "_", part) for part in parts)
    return text if len(text) <= 100 else f"{text[:90]}-{hashlib.sha256(text.encode()).hexdigest()[:9]}"


def check_apart(points: Sequence[Point], configs: Sequence[Any]) -> None:
    """Refuse points of which one would write what another writes.

    Args:
        points: as composed.
        configs: their typed configs; one that makes a dataset has `building()`.

    Raises:
        InputError: naming two points, and the run folder or the dataset.
    """
    keys = varying(points)
    runs: dict[Path, int] = {}
    builds: dict[Path, int] = {}

    def clash(first: int, number: int, what: str) -> InputError:
        one, other = (" ".join(points[at].parts(keys)) or "the same" for at in (first, number))
        return InputError(f"points {first + 1} ({one}) and {number + 1} ({other}) of this sweep {what}.")

    for number, config in enumerate(configs):
        first = runs.setdefault(Path(config.run.dir).absolute(), number)
        if first != number:
            what = f"share run.dir={config.run.dir}: start them one by one, each with a run.name of its own"
            raise clash(first, number, what)
        if not hasattr(config, "building"):
            continue
        build = config.building()
        first = builds.setdefault(build.data_dir(), number)
        data = f"data.dir={config.data.dir}"
        if _bytes_of(build) != _bytes_of(configs[first].building()):
            what = (
                f"make different datasets in {data}: start them one by one, each with a data.dir of its own"
            )
            raise clash(first, number, what)
        if first != number and _at_once(config) and build.remove is None and not _is_there(build.data_dir()):
            alone = " ".join(points[first].parts(keys))
            what = (
                f"would make {data} at the same time: give the command with -m {alone} alone first, and "
                "whole when that has made it, or add cluster.at_once=1"
            )
            raise clash(first, number, what)


def _bytes_of(build: PreprocessConfig) -> dict[str, Any]:
    """The settings that decide on a dataset's bytes."""
    settings = deciding(build)
    del settings["clean"]["dedup"]["memory_mb"]  # part of the key, though it moves no byte
    return settings


def _at_once(config: Any) -> bool:
    """Whether the jobs of several points may run beside each other."""
    cluster = config.cluster
    return cluster.executor == "slurm" and cluster.at_once != 1 and not config.dry_run


def _is_there(data_dir: Path) -> bool:
    """Whether a dataset stands there that a run may read."""
    try:
        return not Manifest.load(data_dir).stale
    except InputError:
        return False


def keep(verb: str, overrides: Sequence[str], points: Sequence[Point]) -> None:
    """Note which runs belong to a sweep, in runs/.sweeps/<key>.json; the same command has the same key."""
    key = hashlib.sha256("\n".join([verb, *sorted(overrides)]).encode()).hexdigest()[:12]
    keys = varying(points)
    runs = [
        {"dir": str(Path(point.config.run.dir).absolute()), "overrides": " ".join(point.parts(keys))}
        for point in points
    ]
    folder = Path(runs[0]["dir"]).parent / ".sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"verb": verb, "overrides": list(overrides), "runs": runs}
    write_atomically(folder / f"{verb}-{key}.json", json.dumps(record, indent=1))


def _value_text(override: Override) -> str:
    return str(override.get_value_element_as_str()).replace(" ", "").strip("'\"[]{}")
