"""Environment variables that belong to another job or to another world of ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping

# What starts ranks must not hand them the identity of the job or MPI world that it runs in itself, nor the
# habits that a person set for Slurm's commands.
FOREIGN = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")
FOREIGN += ("SACCTMGR_", "SCONTROL_", "PMI_", "PMI2_", "PMIX_", "MPI_LOCAL", "OMPI_", "HYDRA_", "HYDI_")
FOREIGN += ("MPIR_", "MPIEXEC_", "SUBMITIT_")
# Which Slurm is spoken to is no identity.
KEPT = ("SLURM_CONF",)


def scrubbed(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without the marks of a surrounding job or MPI world.

    Args:
        env: None is that of this process.
    """
    given = os.environ if env is None else env
    return {
        name: value
        for name, value in given.items()
        if name in KEPT or not (name.startswith(FOREIGN) or name == "PMI")
    }
