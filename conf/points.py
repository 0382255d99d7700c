"""The points of a sweep (`-m`) and what each is called."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from conf import overrides
from conf.deciding import NEVER, decides

# What a name takes only where it tells two points apart: mostly the default name holds it already.
UNNAMED = ("model", "corpus", "corpus.name", "corpus.path", "cluster")
ONCE_UNNAMED = tuple(f"cluster.{key}" for key in ("slurm_conf", "account", "partition", "time", "qos"))
KEY = re.compile(r"-(?=[a-z][a-z0-9_.]*=)")  # before each part of a name


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
    def of(cls, config: DictConfig, given: Sequence[str]) -> Point:
        """A point out of its composed config and its overrides."""
        parsed = overrides.parse(given)
        return cls(config, {override.key_or_group: _value_text(override) for override in parsed})

    def parts(self, keys: set[str]) -> list[str]:
        """Those of its overrides whose key is in `keys`, sorted."""
        return sorted(f"{key}={value}" for key, value in self.own.items() if key in keys)


def varying(points: Sequence[Point]) -> set[str]:
    """The keys whose value is not the same in all points."""
    keys = {key for point in points for key in point.own}
    return {key for key in keys if len({point.own.get(key) for point in points}) > 1}


def name(points: Sequence[Point]) -> None:
    """Add to the run.name of each point the overrides that set it apart.

    A name holds the keys that decide on what is learnt or measured, and others only where points would have
    the same name without them; so a sweep that is repeated with another time limit or log finds its runs.
    """
    bases = [point.config.run.name for point in points]
    keys = {key for point in points for key in point.own}

    def suffixes(named: set[str]) -> list[str]:
        found = [suffix(point.parts(named)) for point in points]
        if len(set(zip(bases, found, strict=True))) < len(found):
            found = [suffix(point.parts(named | varying(points).difference(NEVER))) for point in points]
        return found

    today = suffixes({key for key in keys if decides(key)}.difference(UNNAMED))
    before = suffixes(keys.difference(UNNAMED, NEVER, ONCE_UNNAMED))
    for point, base, text, once in zip(points, bases, today, before, strict=True):
        point.config.run.name = base + text
        if Path(point.config.run.dir).name == base + text:
            point.config.run.name = found_name(Path(point.config.run.dir), base, once)


def found_name(folder: Path, base: str, once: str) -> str:
    """The name under which a point's run is there, which may be one that an earlier version gave it.

    Earlier versions also put into a name what decides on nothing.

    Args:
        folder: where the run is by today's name.
        base: the run.name of the sweep.
        once: what an earlier version added to it for the same command.
    """
    if folder.exists():
        return folder.name
    if folder.with_name(base + once).exists():
        return base + once
    found = []
    for other in folder.parent.glob(f"{glob.escape(base)}-*/"):
        more = set(KEY.split(other.name)) - set(KEY.split(folder.name))
        less = set(KEY.split(folder.name)) - set(KEY.split(other.name))
        if not less and not any(decides(part.partition("=")[0]) for part in more):
            found.append(other.name)
    return found[0] if len(found) == 1 else folder.name  # two are no answer


def suffix(parts: Sequence[str]) -> str:
    """What a point adds to run.name, in letters fit for a folder and a job.

    A long one is cut and ends in a hash of the whole.
    """
    text = "".join("-" + re.sub(r"[^A-Za-z0-9._=+-]", "_", part) for part in parts)
    return text if len(text) <= 100 else f"{text[:90]}-{hashlib.sha256(text.encode()).hexdigest()[:9]}"


def _value_text(override: Override) -> str:
    return str(override.get_value_element_as_str()).replace(" ", "").strip("'\"[]{}")
