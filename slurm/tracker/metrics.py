"""`elm-queue metrics`: the queue as Prometheus text, for a textfile collector or a loopback port.

Labels are bounded: partitions (the first fifty, the rest as "other"), states, families of reasons; no job ids
and no users. While Slurm does not answer, `elm_queue_up` is 0 and `elm_queue_age_seconds` grows; the figures
are then the last known ones, and before the first answer there are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

from conf.errors import InputError
from slurm.tracker import poll
from slurm.tracker.command import Unreachable
from slurm.tracker.poll import Picture
from slurm.tracker.why import family_of

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
    """The metrics, and why they are not fresh or None.

    Raises:
        InputError: prometheus_client is not installed.
    """
    client = _client()
    collector = _Collector(client.core.GaugeMetricFamily)
    registry = client.CollectorRegistry()
    registry.register(collector)
    content = client.generate_latest(registry).decode()
    return content, collector.failure


def serve(port: int) -> None:
    """Serve /metrics on 127.0.0.1 until it is interrupted.

    Raises:
        InputError: the port cannot be used, or prometheus_client is not installed.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"--port: found {port}; allowed is 1 to 65535")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler())
    except OSError as error:
        raise InputError(f"--port: {port} cannot be used ({error.strerror})") from error
    with server:
        server.serve_forever()


def handler() -> type[BaseHTTPRequestHandler]:
    """What answers a scrape: prometheus_client's handler, at /metrics alone."""
    client = _client()
    registry = client.CollectorRegistry()
    registry.register(_Collector(client.core.GaugeMetricFamily))

    class Handler(client.MetricsHandler.factory(registry)):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                super().do_GET()
            else:
                self.send_error(404)

    return Handler


def _client() -> ModuleType:
    try:
        import prometheus_client.core
    except ImportError:
        raise InputError("metrics: needs prometheus_client: pip install prometheus_client") from None
    return prometheus_client


class _Collector:
    """Reads the queue when it is asked for the metrics.

    Attributes:
        failure: why the figures are not fresh, after they were collected.
    """

    def __init__(self, family: Callable[..., Any]):
        self.family = family
        self.failure: str | None = None

    def describe(self) -> list[Any]:
        """Nothing before the first scrape, so that registering asks Slurm nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """One family of prometheus_client per metric."""
        series = self._series()
        for name, values in series.items():
            labels = [label for label, _ in next(iter(values), ())]
            family = self.family(name, HELP[name], labels=labels)
            for words, value in sorted(values.items()):
                family.add_metric([word for _, word in words], value)
            yield family

    def _series(self) -> dict[str, Series]:
        try:
            picture = poll.picture()
        except Unreachable as error:
            self.failure = str(error)
            return {"elm_queue_up": {(): 0.0}}
        self.failure = picture.failure
        head: dict[str, Series] = {
            "elm_queue_up": {(): float(picture.failure is None)},
            "elm_queue_age_seconds": {(): picture.age},
            "elm_queue_scrape_seconds": {(): picture.seconds},
        }
        return head | _of_jobs(picture) | _of_nodes(picture)


def _of_jobs(picture: Picture) -> dict[str, Series]:
    partitions = _bounded(name for job in picture.jobs for name in job.partition.split(","))
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
            reasons[(partition, ("reason", family_of(job.reason, job.state).key))] += job.tasks
            if job.waits_for_turn:
                oldest[(partition,)] = max(oldest.get((partition,), 0), job.waited(picture.taken) or 0)
    return {
        "elm_queue_jobs": dict(jobs),
        "elm_queue_gpus": dict(gpus),
        "elm_queue_reasons": dict(reasons),
        "elm_queue_oldest_wait_seconds": oldest,
    }


def _of_nodes(picture: Picture) -> dict[str, Series]:
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


def _bounded(names: Iterable[str]) -> set[str]:
    """The names that get a label of their own: the most frequent ones."""
    return {name for name, _ in Counter(names).most_common(MOST_PARTITIONS)}
