"""A committed checkpoint: a step folder with a manifest.json that names its files with sizes and hashes.

    {"schema": 1, "step": 200, "consumed_samples": 1600, "loss": 3.1, …,
     "files": {"rank-00000-0.safetensors": {"bytes": …, "sha256": …, "places": […]}, …},
     "sha256": hash of all the rest}

Checkpoints made before the manifest had a hash of its own load as before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep import files
from elm_megatron.checkpoint.shards import Reader
from elm_megatron.run.steps import MANIFEST, step_number

SCHEMA = 1
OWN_HASH = "sha256"


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a step folder's manifest, with schema and hash."""
    content = {"schema": SCHEMA, **manifest}
    content.pop(OWN_HASH, None)
    files.write(folder / MANIFEST, json.dumps({**content, OWN_HASH: _hash(content)}))


def _hash(content: dict[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != OWN_HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """One committed step folder.

    Attributes:
        folder: the step folder.
        manifest: its manifest.json.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read the manifest of a step folder.

        Raises:
            InputError: there is none, or it is damaged.
            Unreadable: the file system does not give it now.
        """
        path = folder / MANIFEST
        try:
            manifest = json.loads(files.reading(path, lambda: path.read_bytes()))
        except FileNotFoundError as error:
            raise InputError(f"{path}: missing.") from error
        except ValueError as error:
            raise InputError(f"{path}: not readable ({error}).") from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            raise InputError(f"{path}: is not the manifest of a checkpoint.")
        if manifest.get("schema") != SCHEMA:
            raise InputError(f"{path}: schema {manifest.get('schema')!r}, this suite reads {SCHEMA}.")
        if folder.name.startswith("step-") and step_number(folder.name) != manifest.get("step"):
            raise InputError(f"{path}: says step {manifest.get('step')}, the folder's name another.")
        if OWN_HASH in manifest and manifest[OWN_HASH] != _hash(manifest):
            raise InputError(f"{path}: its hash differs from the one it holds; the file was changed.")
        return cls(folder, manifest)

    @property
    def step(self) -> int:
        """Updates done when it was written."""
        return self.manifest["step"]

    @property
    def bytes(self) -> int:
        """Of all its files, the manifest not counted."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    def reader(self) -> Reader:
        """Reads its tensors; `verify` first."""
        return Reader(self.folder, self.manifest["files"])

    def annotate(self, **facts: Any) -> None:
        """Add facts to the manifest."""
        write(self.folder, {**self.manifest, **facts})

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Check sizes and hashes of the files part, part + parts, … of the manifest.

        Raises:
            InputError: naming the first file that is missing or differs, and how.
            Unreadable: a file cannot be read now, which says nothing about its bytes.
        """
        for name in sorted(self.manifest["files"])[part::parts]:
            path, entry = self.folder / name, self.manifest["files"][name]
            if Path(name).name != name:
                raise InputError(f"{self.folder}: the manifest names a file outside the folder, {name!r}.")
            try:
                size = files.reading(path, lambda path=path: path.stat().st_size)
                if size != entry["bytes"]:
                    raise InputError(f"{path}: {size} bytes, the manifest says {entry['bytes']}.")
                digest = files.reading(path, lambda path=path: files.sha256(path))
            except FileNotFoundError as error:
                raise InputError(f"{path}: missing.") from error
            if digest != entry["sha256"]:
                raise InputError(f"{path}: sha256 differs from the manifest's; the file was changed.")
