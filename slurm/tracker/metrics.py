"""`elm-queue metrics`: the queue as Prometheus text, for a textfile collector or a loopback port.

Labels are bounded: partitions (the first fifty, the rest as "other"), states, families of reasons; no job ids
and no users. While Slurm does not answer, `elm_queue_up` is 0 and `elm_queue_age_seconds` grows; the figures
are then the last known ones, and before the first answer there are none.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from slurm.tracker import poll
from slurm.tracker.command import Unreachable
from slurm.tracker.families import family_of
from slurm.tracker.poll import Picture

MOST_PARTITIONS = 50

HELP = {
    "elm_queue_up": "Whether Slurm answered the last question.",
    "elm_queue_age_seconds": "Age of the figures.",
    "elm_queue_scrape_seconds": "How long Slurm took for them.",
    "elm_queue_jobs": "Jobs and array tasks by partition and state.",
    "elm_queue_gpus": "GPUs that jobs hold or wait for, by partition and state.",
    "elm_queue_reasons": "Waiting jobs and array tasks by partition and family of reasons.",
    "elm_queue_oldest_wait_seconds": "Longest wait of a job that waits for its turn, by partition.",
    "elm_queue_nodes": "Nodes by state.",
    "elm_queue_node_gpus": "GPUs of the nodes, by use.",
    "elm_queue_node_cpus": "Cores of the nodes, by use.",
}

Series = dict[tuple[tuple[str, str], ...], float]


def text() -> tuple[str, str | None]:
    """The metrics, and why they are not fresh or None."""
    try:
        picture = poll.picture()
    except Unreachable as error:
        return render({"elm_queue_up": {(): 0}}), str(error)
    head: dict[str, Series] = {
        "elm_queue_up": {(): float(picture.failure is None)},
        "elm_queue_age_seconds": {(): picture.age},
        "elm_queue_scrape_seconds": {(): picture.seconds},
    }
    return render(head | of_jobs(picture) | of_nodes(picture)), picture.failure


def of_jobs(picture: Picture) -> dict[str, Series]:
    partitions = bounded(name for job in picture.jobs for name in job.partition.split(","))
    jobs: Counter = Counter()
    gpus: Counter = Counter()
    reasons: Counter = Counter()
    oldest: dict[tuple[tuple[str, str], ...], float] = {}
    for job in picture.jobs:
        name = job.partition.split(",")[0]
        partition = ("partition", name if name in partitions else "other")
        state = ("state", job.state.lower())
        jobs[(partition, state)] += job.tasks
        gpus[(partition, state)] += job.gpus * job.tasks
        if job.pending:
            family = family_of(job.reason).key
            reasons[(partition, ("reason", family))] += job.tasks
            if family in ("resources", "priority"):
                oldest[(partition,)] = max(oldest.get((partition,), 0), job.waited(picture.taken) or 0)
    return {
        "elm_queue_jobs": dict(jobs),
        "elm_queue_gpus": dict(gpus),
        "elm_queue_reasons": dict(reasons),
        "elm_queue_oldest_wait_seconds": oldest,
    }


def of_nodes(picture: Picture) -> dict[str, Series]:
    states = Counter((("state", node.state.rstrip("*~#!%$@^-+")),) for node in picture.nodes)
    found: dict[str, Series] = {"elm_queue_nodes": dict(states)}
    for name, whole, used in (("gpus", "gpus", "gpus_used"), ("cpus", "cpus", "cpus_used")):
        there = sum(getattr(node, whole) for node in picture.nodes)
        taken = sum(getattr(node, used) for node in picture.nodes)
        free = sum(node.free[name] for node in picture.nodes)
        found[f"elm_queue_node_{name}"] = {
            (("use", "allocated"),): taken,
            (("use", "free"),): free,
            (("use", "out_of_service"),): there - taken - free,
        }
    return found


def bounded(names: Iterable[str]) -> set[str]:
    """The names that get a label of their own: the most frequent ones."""
    return {name for name, _ in Counter(names).most_common(MOST_PARTITIONS)}


def render(metrics: dict[str, Series]) -> str:
    lines = []
    for name, series in metrics.items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        for labels, value in sorted(series.items()):
            inside = ",".join(f'{label}="{quoted(word)}"' for label, word in labels)
            lines.append(f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}")
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def write(path: Path, content: str) -> None:
    """Writes the collector's file by an atomic rename, readable for the collector."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
