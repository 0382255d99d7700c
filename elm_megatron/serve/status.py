"""What a server leaves in its run folder: where it is, what was asked of it, and its key.

runs/<name>/serving.json   written every two seconds; `elm-queue` and the web app read it
runs/<name>/serve.key      readable by its owner alone; never on a command line and in no log
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep import files

PORT = 8600  # on the machine of the person who asks
STATUS_FILE = "serving.json"
KEY_FILE = "serve.key"


def command_of(run: Path) -> str:
    """The command that leads from this machine to a run's server."""
    return f"python -m elm_megatron.serve.connect {run}"


def key_of(run: Path) -> str:
    """The key of a run, made once.

    Raises:
        InputError: others can read it.
    """
    path = run / KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_key(path)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    return read_key(path)


def read_key(path: Path) -> str:
    """A key from its file.

    Raises:
        InputError: it cannot be read, is empty, or others can read it.
    """
    try:
        mode, key = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the key cannot be read ({error}).") from error
    if mode & 0o077:
        raise InputError(f"{path}: others can read the key; run chmod 600 {path}.")
    if not key:
        raise InputError(f"{path}: the key is empty; remove the file, and the next start makes a new one.")
    return key


def read(run: Path) -> dict[str, Any]:
    """The newest status of a server; {} where there is none that can be read."""
    try:
        found = json.loads((run / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(run: Path, status: Mapping[str, Any]) -> None:
    """Replace the status; a crash of the node may lose the newest one, and then the next write brings it."""
    files.write(run / STATUS_FILE, json.dumps(status) + "\n", mode=0o600, durable=False)


def is_ours(status: Mapping[str, Any], job: str, restart: int) -> bool:
    """Whether a status is of this attempt, so that no successor has taken over."""
    return (status.get("job"), status.get("restart")) == (job, restart)
