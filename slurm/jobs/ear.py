"""What EAR measured of a job's nodes, read back once the job has ended (`eacct -j <job>`).

EAR (Energy Aware Runtime) counts the energy of whole nodes, when the job asked for it (`cluster.ear=true`).
Its table has a line for each step of a job; the line of the batch script spans the others.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from dataclasses import asdict
from typing import Any

from conf import typed
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from elm_megatron.planner import footprint
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config

JOULES_PER_KWH = 3.6e6
SECONDS = 30.0  # that eacct may take
METHOD = "EAR, whole nodes"
ENDED = ("done", "failed", "cancelled")
COLUMN = re.compile(r"^ENERGY\(J\)$")


def read_back(run: RunFolder) -> float | None:
    """Put EAR's figure into the run.json of a job that has ended, once.

    Args:
        run: its folder.

    Returns:
        kWh of the nodes in all jobs of the run; None where EAR did not measure it or cannot be asked.
    """
    with contextlib.suppress(InputError, KeyError, OSError, TypeError, ValueError):
        record = run.read()
        if record.get("ear_kwh") is not None:
            return float(record["ear_kwh"])
        config = run_config(run) if run.config.is_file() else {}
        if not (config.get("cluster") or {}).get("ear") or record.get("state") not in ENDED:
            return None
        jobs = list(dict.fromkeys(str(job) for job in record.get("job_ids", [])))
        found = [joules for job in jobs if (joules := measured(job)) is not None]
        if not found or len(found) < len(jobs):
            return None  # a part would pass for the whole
        return _keep(run, record, config, sum(found) / JOULES_PER_KWH)
    return None


def _keep(run: RunFolder, record: dict[str, Any], config: dict[str, Any], kwh: float) -> float:
    cluster = typed.build(ClusterConfig, config["cluster"])
    ranks = int(record["world_size"])
    seconds = float(record.get("seconds") or record.get("job_seconds") or 0.0)
    taken = footprint.recorded(cluster, ranks, footprint.cores_of(cluster, ranks), seconds, kwh, METHOD)
    fields = {"ear_kwh": kwh, "kwh": kwh, "energy_method": METHOD, footprint.FIELD: asdict(taken)}
    run.update(**fields)
    return kwh


def measured(job: str) -> float | None:
    """Joules of one job's nodes; None where eacct is not there or knows nothing of it."""
    try:
        done = subprocess.run(
            ["eacct", "-j", job],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return joules(done.stdout, job)


def joules(text: str, job: str) -> float | None:
    """Joules in eacct's table: the line of the batch script where it has one, else the sum of the steps."""
    column, batch, steps = None, None, []
    for line in text.splitlines():
        words = line.split()
        if "JOB-STEP" in words:
            column = next((n for n, word in enumerate(words) if COLUMN.match(word)), None)
            continue
        if column is None or len(words) <= column or not words[0].startswith(f"{job}-"):
            continue
        try:
            energy = float(words[column])
        except ValueError:
            continue
        if words[0] == f"{job}-sb":
            batch = energy
        else:
            steps.append(energy)
    # The batch script's line has the first node alone where a job has several: take the larger.
    known = [value for value in (batch, sum(steps) if steps else None) if value is not None]
    return max(known) if known else None
