"""A typed config as plain containers and as YAML. Loads no Hydra, so that ranks may use it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as the dicts, lists and text that YAML and JSON hold."""
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value) if item.init}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def as_yaml(config: Any) -> str:
    """A typed config as YAML text, every default written out."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
