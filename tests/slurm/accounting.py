"""How jobs ended, by the accounting of the private Slurm, which runs behind its controller."""

from slurm.devcluster import processes
from slurm.devcluster.cluster import DevCluster

UNFINISHED = {"PENDING", "RUNNING", "SUSPENDED", "RESIZING"}


def states(cluster: DevCluster, job: str) -> list[str]:
    """The state of every attempt of a job so far, oldest first; none when accounting does not answer."""
    asked = cluster.command("sacct", "-XnPD", "-j", job, "--format=State", check=False)
    return [line.split()[0] for line in asked.stdout.splitlines()] if asked.returncode == 0 else []


def final_states(cluster: DevCluster, job: str, seconds: float = 120) -> list[str]:
    """Waits until the job has left the queue and accounting knows the end of its last attempt."""

    told: list[str] = []

    def over() -> bool:
        asked = cluster.command("squeue", "-h", "-j", job, check=False)
        left = (asked.returncode == 0 and not asked.stdout) or "Invalid job id" in asked.stderr
        told[:] = states(cluster, job) if left else []
        return bool(told) and told[-1] not in UNFINISHED

    ended = processes.wait_until(over, seconds, 0.2)
    assert ended, f"job {job} did not end in {seconds} s: {states(cluster, job)}"
    return told
