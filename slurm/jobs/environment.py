"""Which of the caller's environment variables a job, and a command of Slurm's, may see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_prep.environment import KEPT, scrubbed

# A batch job gets these and what its site adds; everything else stays behind, secrets first of all.
# What a person sets for communication libraries is set for a reason, and holds no secret.
PASSED = ("NCCL_", "GLOO_", "UCX_", "FI_", "TORCH_", "PYTORCH_", "OMP_", "MKL_")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")  # in small or in capital letters
# Variables of these names are set for a job too; those that stay behind are named.
TOLD = (
    "CUDA_",
    "HF_",
    "TRANSFORMERS_",
    "WANDB_",
    "MPI_",
    "I_MPI_",
    "PYTHONPATH",
    "TRITON_",
    "XDG_CACHE_HOME",
)
BATCH = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TZ", "TMPDIR", "MODULEPATH")
BATCH += ("LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONUTF8", "OMP_NUM_THREADS", *KEPT)


def exported(env: Mapping[str, str]) -> dict[str, str]:
    """What sbatch is given: only the variables a batch job needs."""
    return {name: value for name, value in env.items() if _is_passed(name, value)}


def dropped(env: Mapping[str, str]) -> list[str]:
    """Names of variables that a person may have set for the job and that it does not get."""
    told = [name for name in env if name.startswith(TOLD) or name.lower() in PROXIES]
    return sorted(name for name in told if not _is_passed(name, env[name]))


def _is_passed(name: str, value: str) -> bool:
    if name.lower() in PROXIES:
        return "@" not in value  # a name and a password would be written into files
    return name in BATCH or name.startswith(PASSED)


def asking(slurm_conf: str | None = None) -> dict[str, str]:
    """The environment in which Slurm's commands are asked: nothing in it hides a job or changes a format.

    Args:
        slurm_conf: of another Slurm than this machine's own.
    """
    env = scrubbed() | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    if slurm_conf:
        env["SLURM_CONF"] = str(Path(slurm_conf).absolute())
    return env
