"""The virtual environment as one file, from which the ranks of a job start: `cluster.environment=packed`.

    python -m slurm.packed_environment        makes .venv.packed/<hash>.tar.zst, beside .venv

An environment has tens of thousands of files. When hundreds of ranks import them at once from a shared file
system, its metadata servers are what they wait for. A packed environment is read once: sbcast brings the file
to the disk of each node, where it is unpacked (`jobs/packed.sh`), once for all later jobs with the same file.

The file is named by the hash of the environment's lock: the Python, and every installed package with its
version.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from conf.errors import InputError
from conf.process import guarded

COMMAND = "python -m slurm.packed_environment"
ENDINGS = (".tar.zst", ".tar")
LEFT_OUT = ("./.cache", "./tests-installed")


def lock() -> str:
    """What decides on the environment's content: the Python, and the installed packages, a line each."""
    packages = {f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions()}
    return "\n".join([f"python {platform.python_version()} {sys.prefix}", *sorted(packages)])


def folder() -> Path:
    """Where packed environments are kept: beside the environment.

    Raises:
        InputError: this Python is in no virtual environment, which alone can be used from another place.
    """
    prefix = Path(sys.prefix)
    if sys.prefix == sys.base_prefix:
        raise InputError(
            f"cluster.environment=packed: {prefix} is no virtual environment; make one with venv."
        )
    return prefix.with_name(f"{prefix.name}.packed")


def find() -> Path:
    """The file of the environment as it is now.

    Raises:
        InputError: it was not packed, or has changed since.
    """
    name = _name()
    for ending in ENDINGS:
        if (path := folder() / f"{name}{ending}").is_file():
            return path
    what = "has changed since it was packed" if folder().is_dir() else "is not packed"
    raise InputError(f"cluster.environment=packed: the environment {what}; pack it: {COMMAND}.")


def pack() -> Path:
    """Pack the environment, unless it is there already; returns the file.

    Raises:
        InputError: tar fails.
    """
    with contextlib.suppress(InputError):
        return find()
    place = folder()
    place.mkdir(mode=0o700, exist_ok=True)
    ending, options = (ENDINGS[0], ["--zstd"]) if shutil.which("zstd") else (ENDINGS[1], [])
    final = place / f"{_name()}{ending}"
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    excluded = [f"--exclude={name}" for name in LEFT_OUT]
    command = [
        "tar",
        *options,
        "-C",
        sys.prefix,
        "--owner=0",
        "--group=0",
        *excluded,
        "-cf",
        str(temporary),
        ".",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode:
            raise InputError(f"{final}: cannot be made ({done.stderr.strip().splitlines()[-1]}).")
        temporary.rename(final)
    finally:
        temporary.unlink(missing_ok=True)
    return final


def _name() -> str:
    return hashlib.sha256(lock().encode()).hexdigest()[:16]


def main() -> int:
    """Pack the environment of this Python, and say where the file is."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    path = pack()
    print(
        f"{path}: {path.stat().st_size / 2**20:,.0f} MiB; jobs with cluster.environment=packed start from it"
    )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
