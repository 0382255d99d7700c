"""Keys of earlier versions: refused on the command line, dropped where an old run's config.yaml is read."""

from __future__ import annotations

from typing import Any

# Dotted key, and what to do instead.
REMOVED = {
    "data.reset_position_ids": "leave it out: positions are relative, so they begin anew with each document "
    "where data.reset_attention_mask=true",
}


def without_removed(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as an earlier version wrote it, without the keys that are gone."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key not in REMOVED:
            kept[name] = without_removed(value, f"{key}.") if isinstance(value, dict) else value
    return kept
