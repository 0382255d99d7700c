"""One line of the doctor's report, and how its checks ask a command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from slurm.jobs import batch

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass
class Finding:
    """One line: how it is, what was looked at, what was found, and what to do about it."""

    level: str
    what: str
    found: str
    todo: str = ""


Check = Callable[[ClusterConfig], list[Finding]]


def environment(cluster: ClusterConfig | None) -> dict[str, str]:
    """The environment in which a cluster's commands are called."""
    return batch.environment(cluster, os.environ) if cluster else dict(os.environ)


def output(command: list[str], cluster: ClusterConfig | None = None, check: bool = True) -> str:
    """What a command prints, on both streams.

    Raises:
        InputError: it is not there, or with `check` it failed.
    """
    try:
        done = subprocess.run(
            command,
            env=environment(cluster),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=120,
        )
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not on PATH: this machine is no part of a Slurm cluster") from None
    if check and done.returncode != 0:
        raise InputError(f"{' '.join(command[:3])}: {' '.join(done.stderr.split())}")
    return done.stdout + done.stderr
