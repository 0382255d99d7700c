"""The run being written, `run.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RunConfig:
    """The run being written: its name and its folder."""

    name: str
    dir: str
