"""The command that starts Python on a rank, and what an Apptainer container sees of this machine."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig

ROOT = Path(__file__).resolve().parents[2]  # the checkout


def python(cluster: ClusterConfig, run: Path, code: Path, others: Sequence[Path] = ()) -> str:
    """The command that starts Python on a rank, inside the container where there is one.

    `-P` keeps the folder in which the job was handed in, which may be the checkout, off Python's path.
    The container sees the code, the caller's folder (which has data/), the run folder, `others`, and what
    `cluster.binds` adds.

    Raises:
        InputError: a folder has a name that Apptainer cannot bind.
    """
    if cluster.environment == "packed":
        return f'"$environment"/bin/{Path(sys.executable).name} -P'
    if cluster.container is None:
        return f"{shlex.quote(sys.executable)} -P"
    words = ["apptainer", "exec", *(["--nv"] if cluster.device == "gpu" else [])]
    for folder in outermost([code, Path.cwd(), run, *others]):
        if re.search("[:,]", str(folder)):
            raise InputError(f"{folder}: cluster.container cannot bind a folder with : or , in its name.")
        words += ["--bind", str(folder)]
    for bind in cluster.binds:
        words += ["--bind", bind]
    words += ["--env", f"PYTHONPATH={code}", "--pwd", str(Path.cwd())]
    return shlex.join([*words, cluster.container, "python", "-P"])


def outermost(folders: Sequence[Path]) -> list[Path]:
    """Folders without those inside another of them, and without /: a container has its own."""
    kept: list[Path] = []
    plain_names = [Path(os.path.normpath(folder)) for folder in folders]  # what `..` leaves out is elsewhere
    for folder in sorted(dict.fromkeys(plain_names), key=lambda path: len(path.parts)):
        if len(folder.parts) > 1 and not any(folder.is_relative_to(other) for other in kept):
            kept.append(folder)
    return kept


def named_paths(asked: Mapping[str, Any]) -> list[Path]:
    """The paths outside the caller's folder that a configuration names.

    Args:
        asked: the configuration as plain values.

    Returns:
        Each path itself where it exists, otherwise the nearest folder above it.
    """

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from texts(item)

    keys = {key: value for key, value in asked.items() if key not in ("cluster", "run")}
    found = []
    for text in texts(keys):
        if "/" in text and "://" not in text:
            path = Path(os.path.normpath(Path(text).expanduser().absolute()))
            if not path.is_relative_to(Path.cwd()):
                found.append(next(folder for folder in (path, *path.parents) if folder.exists()))
    return found
