"""`elm-queue status RUN|ID`: where a run is, by run.json, its metrics and the queue."""

from __future__ import annotations

import time
from typing import Any

from slurm.tracker import why
from slurm.tracker.logs import log_path
from slurm.tracker.poll import Picture
from slurm.tracker.runs import progress_of
from slurm.tracker.show import escaped, moment, quantity, span
from slurm.tracker.targets import Target


def facts(target: Target, picture: Picture) -> dict[str, Any]:
    """The state as data: times in UTC epoch seconds; what is not known is None."""
    record, job = target.record(), target.job
    run = progress_of(f"elm:{target.run.path}", job.user if job else None) if target.run else None
    left = run.seconds_left if run and job and job.running else None
    return {
        "run": str(target.run.path) if target.run else None,
        "job": job.shown_id if job else target.job_id,
        "queue": job.state.lower() if job else None,
        "why": why.family_of(job.reason, job.state).short if job and job.pending else None,
        "state": record.get("state"),
        "reason": record.get("reason"),
        "step": run.step if run else record.get("step"),
        "steps": run.steps if run else record.get("steps"),
        "loss": run.loss if run else record.get("loss"),
        "tokens_per_second": run.tokens_per_second if run else None,
        "mfu": run.mfu if run else None,
        "memory_bytes": run.memory_bytes if run else None,
        "updated": run.updated if run else record.get("updated"),
        "run_ends": None if left is None else round(time.time() + left),
        "job_ends": job.end if job and job.running else None,
        "attempts": len(record.get("attempts") or record.get("lives") or []) or None,
        "checkpoint": target.run.latest_step() if target.run else None,
        "log": log_path(job) or None if job else None,
    }


def text(found: dict[str, Any]) -> str:
    """The state in a few lines."""
    lines = [f"run: {found['run']}"] if found["run"] else []
    queue = (
        f"{found['queue']}{', ' + found['why'] if found['why'] else ''}"
        if found["queue"]
        else "not in the queue"
    )
    lines.append(f"job {found['job'] or 'unknown'}: {queue}")
    if found["state"]:
        reason = f": {found['reason']}" if found["reason"] else ""
        tries = f", attempt {found['attempts']}" if found["attempts"] else ""
        lines.append(f"run.json: {found['state']}{tries}{reason}")
    if found["step"] is not None:
        lines.append(_progress(found))
    if found["checkpoint"] is not None:
        lines.append(f"newest checkpoint: step {found['checkpoint']}")
    for key, what in (("run_ends", "training ends"), ("job_ends", "its time limit ends the job")):
        if found[key]:
            lines.append(f"{what} {moment(found[key])}")
    if found["log"]:
        lines.append(f"log: {found['log']}")
    return "\n".join(map(escaped, lines))


def _progress(found: dict[str, Any]) -> str:
    parts = [f"step {found['step']} of {found['steps'] or 'unknown'}"]
    if found["loss"] is not None:
        parts.append(f"loss {found['loss']:.3f}")
    if found["tokens_per_second"]:
        parts.append(f"{quantity(found['tokens_per_second'], 0)} tokens/s")
    if found["mfu"]:
        parts.append(f"{found['mfu']:.1%} of the peak")
    if found["memory_bytes"]:
        parts.append(f"{found['memory_bytes'] / 2**30:.1f} GiB on the fullest rank")
    if found["updated"]:
        parts.append(f"{span(max(0, time.time() - found['updated']))} ago")
    return ", ".join(parts)
