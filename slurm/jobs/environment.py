"""Which of the caller's environment variables a job may see."""

from __future__ import annotations

from collections.abc import Mapping

# A submission from inside another job must not inherit that job's identity.
LEAKING = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "PMI_", "PMI2_", "PMIX_", "MPI_LOCAL", "OMPI_")
LEAKING += ("HYDRA_", "HYDI_", "MPIR_", "MPIEXEC_", "SUBMITIT_")
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")

# A batch job gets these and what its site adds; everything else stays behind, secrets first of all.
BATCH = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TZ", "TMPDIR", "MODULEPATH")
BATCH += ("LD_LIBRARY_PATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", *KEPT)


def scrubbed(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Slurm, MPI and submitit left in it for another job."""
    return {
        name: value
        for name, value in env.items()
        if name in KEPT or (not name.startswith(LEAKING) and name != "PMI")
    }


def exported(env: Mapping[str, str]) -> dict[str, str]:
    """What sbatch is given: only the variables a batch job needs."""
    return {name: value for name, value in env.items() if name in BATCH}
