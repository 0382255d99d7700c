"""The points of a sweep (`-m`) and what each is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from conf import overrides

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


def _value_text(override: Override) -> str:
    return str(override.get_value_element_as_str()).replace(" ", "").strip("'\"[]{}")
