"""Which of the caller's environment variables a job, and a command of Slurm's, may see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_prep.environment import KEPT, scrubbed

# A batch job gets these and what its site adds; everything else stays behind, secrets first of all.
BATCH = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TZ", "TMPDIR", "MODULEPATH")
BATCH += (
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONUTF8",
    "OMP_NUM_THREADS",
    "SLURM_CLUSTERS",
    *KEPT,
)


def exported(env: Mapping[str, str]) -> dict[str, str]:
    """What sbatch is given: only the variables a batch job needs."""
    return {name: value for name, value in env.items() if name in BATCH}


def asking(slurm_conf: str | None = None) -> dict[str, str]:
    """The environment in which Slurm's commands are asked: nothing in it hides a job or changes a format.

    Args:
        slurm_conf: of another Slurm than this machine's own.
    """
    env = scrubbed() | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C.UTF-8"}
    if slurm_conf:
        env["SLURM_CONF"] = str(Path(slurm_conf).absolute())
    return env
