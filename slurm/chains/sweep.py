"""A sweep (`-m`): no two of its points write one place, its runs are noted, and its jobs take turns.

    sweep = Sweep()

    @main("pretrain", PretrainConfig, sweep.begin)
    def launch(config: PretrainConfig) -> int:
        return sweep.submit(Pretrain(config), config, config.world_size, "pretrain")

Which runs belong to a sweep is kept in runs/.sweeps/<verb>-<key>.json. The key is a hash of the command, so
that the same command is the same sweep; the run folder of each point says what is still missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.points import Point, varying
from conf.schema.cluster import ClusterConfig
from conf.schema.preprocess import PreprocessConfig
from data_prep import files
from data_prep.manifest import Manifest
from data_prep.settings import deciding
from slurm.jobs.executors import Job, Refused
from slurm.jobs.submit import Submission


@dataclass
class Sweep:
    """The points of one command, of which a command without `-m` has one.

    Attributes:
        taken: job ids that Slurm has for this command's points, in order: of each point the last one.
        names: run names of all points, in order.
        begun: points that were started so far.
    """

    taken: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    begun: int = 0

    def begin(
        self,
        verb: str,
        overrides: Sequence[str],
        points: Sequence[Point],
        configs: Sequence[Any],
        kept: bool,
    ) -> None:
        """Refuse points that write one place; then note the sweep, when it is `kept`.

        Raises:
            InputError: naming two points, and the run folder or the dataset.
        """
        check_apart(points, configs)
        self.names = [config.run.name for config in configs]
        if kept:
            keep(verb, overrides, points)

    def submit(
        self,
        job: Job,
        config: Any,
        ranks: int,
        verb: str,
        manifest_sha256: str | None = None,
        resumes: bool = True,
    ) -> int:
        """Start the job of a point, as `slurm.jobs.submit.submit` does, in its turn.

        A held job takes its turn among the points too, and those behind it are still handed in.
        """
        submission = Submission.of(job, config, ranks, verb, manifest_sha256, resumes)
        if turn := self.turn(submission.cluster):
            submission.after(turn)
        try:
            status = submission.start()
        except Refused as refused:
            raise incomplete(refused, self.names[self.begun :], self.begun) from refused
        self.begun += 1
        if submission.job_id:
            self.taken.append(submission.job_id)
        return status

    def turn(self, cluster: ClusterConfig) -> str | None:
        """What the next point waits for where `cluster.at_once` limits how many may run."""
        if cluster.at_once is None or len(self.taken) < cluster.at_once:
            return None
        return f"afterany:{self.taken[-cluster.at_once]}"


def incomplete(refused: Refused, missing: Sequence[str], handed_in: int) -> InputError:
    """What Slurm refused and, where it only has too many jobs, what is missing and how that is handed in.

    Args:
        refused: by Slurm.
        missing: run names that were not handed in.
        handed_in: jobs of the same command that were.
    """
    if not refused.is_full or handed_in + len(missing) < 2:
        return refused
    return InputError(
        f"{refused} Not handed in: {', '.join(missing)}. What Slurm has stays there; the same command hands "
        "in the rest when Slurm takes jobs again."
    )


def check_apart(points: Sequence[Point], configs: Sequence[Any]) -> None:
    """Refuse points of which one would write what another writes.

    Args:
        points: as composed.
        configs: their typed configs; one that makes a dataset has `building()`.

    Raises:
        InputError: naming two points, and the run folder or the dataset.
    """
    keys = varying(points)
    runs: dict[Path, int] = {}
    builds: dict[Path, int] = {}

    def clash(first: int, number: int, what: str) -> InputError:
        one, other = (" ".join(points[at].parts(keys)) or "the same" for at in (first, number))
        return InputError(f"points {first + 1} ({one}) and {number + 1} ({other}) of this sweep {what}.")

    for number, config in enumerate(configs):
        first = runs.setdefault(Path(config.run.dir).absolute(), number)
        if first != number:
            what = f"share run.dir={config.run.dir}: start them one by one, each with a run.name of its own"
            raise clash(first, number, what)
        if not hasattr(config, "building"):
            continue
        build = config.building()
        first = builds.setdefault(build.data_dir(), number)
        data = f"data.dir={config.data.dir}"
        if _bytes_of(build) != _bytes_of(configs[first].building()):
            what = (
                f"make different datasets in {data}: start them one by one, each with a data.dir of its own"
            )
            raise clash(first, number, what)
        if first != number and _at_once(config) and build.remove is None and not _is_there(build.data_dir()):
            alone = " ".join(points[first].parts(keys))
            what = (
                f"would make {data} at the same time: give the command with -m {alone} alone first, and "
                "whole when that has made it, or add cluster.at_once=1"
            )
            raise clash(first, number, what)


def _bytes_of(build: PreprocessConfig) -> dict[str, Any]:
    """The settings that decide on a dataset's bytes."""
    settings = deciding(build)
    del settings["clean"]["dedup"]["memory_mb"]  # part of the key, though it moves no byte
    return settings


def _at_once(config: Any) -> bool:
    """Whether the jobs of several points may run beside each other."""
    cluster = config.cluster
    return cluster.executor == "slurm" and cluster.at_once != 1 and not config.dry_run


def _is_there(data_dir: Path) -> bool:
    """Whether a dataset stands there that a run may read."""
    try:
        return not Manifest.load(data_dir).stale
    except InputError:
        return False


def keep(verb: str, overrides: Sequence[str], points: Sequence[Point]) -> None:
    """Note which runs belong to a sweep, in runs/.sweeps/<key>.json; the same command has the same key."""
    key = hashlib.sha256("\n".join([verb, *sorted(overrides)]).encode()).hexdigest()[:12]
    keys = varying(points)
    runs = [
        {"dir": str(Path(point.config.run.dir).absolute()), "overrides": " ".join(point.parts(keys))}
        for point in points
    ]
    folder = Path(runs[0]["dir"]).parent / ".sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"verb": verb, "overrides": list(overrides), "runs": runs}
    files.write(folder / f"{verb}-{key}.json", json.dumps(record, indent=1))
