"""A job that goes on where this one ends: the same script again, handed in by its own rank 0.

A requeued job starts when the one before it has ended. A server may not be gone in between, so its successor
is handed in while it still runs. What waits in the queue for this run waits for neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from slurm.jobs.environment import asking, exported

TRIES = (1, 5, 20, 60)  # seconds between them: a controller may be restarting


def hand_in(world: World, run: Path) -> str:
    """Hand in the successor of this job; returns its id.

    Raises:
        OSError: Slurm takes none; the text is what sbatch said.
    """
    folder = RunFolder(run, [world.job_id, world.restart])
    script = folder.logs / f"{world.job_id}_submission.sh"
    env = exported(os.environ) | {key: value for key, value in asking().items() if key == "SLURM_CONF"}
    command = ["sbatch", "--parsable", str(script)]
    said = ""
    for pause in (*TRIES, 0):
        done = subprocess.run(
            command, env=env, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode == 0:
            break
        said = done.stderr.strip()
        time.sleep(pause)
    else:
        raise OSError(f"sbatch took no successor of job {world.job_id}: {said}")
    job = done.stdout.strip().partition(";")[0]
    shutil.copy(folder.logs / f"{world.job_id}_submitted.pkl", folder.logs / f"{job}_submitted.pkl")
    record = folder.read()
    folder.update(
        job_ids=[*record.get("job_ids", []), job],
        successors=record.get("successors", {}) | {job: world.job_id},
    )
    return job
