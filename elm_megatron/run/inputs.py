"""What a run learns from, by content: its files may move between two attempts, as `data.dir` may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.names import CONF, PACKAGE
from data_prep import files
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import flatten

INPUTS = "inputs"  # run.json: {key: sha256 of each file that it names}
FILES = ("sft.files", "sft.valid_files", "dpo.files", "tune.template")
BLEND = "data.blend"
DATASET_FILE = "manifest.json"  # names every other file of a dataset with its hash


def facts(asked: dict[str, Any]) -> dict[str, Any]:
    """What run.json keeps of the files a configuration names.

    Args:
        asked: the configuration as plain values.
    """
    flat = flatten(asked)
    found = {key: hashes for key in (*FILES, BLEND) if (hashes := _hashes(key, flat.get(key)))}
    return {INPUTS: found} if found else {}


def moved(run: RunFolder, before: dict[str, Any], asked: dict[str, Any]) -> set[str]:
    """The keys that name other paths than before, and there the same content.

    Args:
        run: its record knows the content; of a run of the first version, the old files are looked at.
        before: its config.yaml.
        asked: the configuration of this command, as plain values.
    """
    record, old, new = run.read(), flatten(before), flatten(asked)
    known = dict(record.get(INPUTS) or {})
    if isinstance(record.get("blend"), list):
        known.setdefault(BLEND, [part.get("manifest_sha256") for part in record["blend"]])
    keys = set()
    for key in (*FILES, BLEND):
        was, wants = old.get(key), new.get(key)
        if not was or not wants or was == wants or _rest(key, was) != _rest(key, wants):
            continue
        content = known.get(key) or _hashes(key, was)
        if content and content == _hashes(key, wants):
            keys.add(key)
    return keys


def _rest(key: str, value: Any) -> Any:
    """What must stay beside the paths: the weights of a blend, the number of files."""
    if key == BLEND:
        return [{name: item for name, item in part.items() if name != "dir"} for part in value]
    return len(value) if isinstance(value, list) else 1


def _hashes(key: str, value: Any) -> list[str] | None:
    """The hash of each file, in order; None when one of them cannot be read."""
    if not value:
        return None
    if key == BLEND:
        paths = [Path(str(part["dir"])).expanduser() / DATASET_FILE for part in value]
    else:
        paths = [_path(str(item)) for item in (value if isinstance(value, list) else [value])]
    try:
        return [files.sha256(path) for path in paths]
    except OSError:
        return None


def _path(text: str) -> Path:
    if text.startswith(PACKAGE):
        return CONF.parent / text.removeprefix(PACKAGE)
    return Path(text).expanduser()
