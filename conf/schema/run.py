"""What the configurations of all verbs have in common: the run being written, and what its job asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from conf import typed
from conf.errors import require
from conf.limits import Fits
from conf.schema.cluster import ClusterConfig

Group = Annotated[str, Fits(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}", "the name of a Unix group")]
CHANNELS = ("mail", "webhook")


@dataclass
class RunConfig:
    """The run being written.

    Attributes:
        name: its name, which is also the name of its Slurm job.
        dir: its folder.
        group: a Unix group that may read it, and ask it to save or stop (elm-queue); null is you alone.
    """

    name: str
    dir: str = typed.follows("runs/${run.name}")
    group: Group | None = None


class Command:
    """Base of the configuration of a verb.

    A verb that asks a cluster for something else than `cluster.*` says, such as one process or no GPU,
    overrides `job_cluster`.

    Attributes:
        dry_run: show what would be done (size, layout, hours, budget, the batch script) and submit nothing.
        notify: mail, webhook or both: be told when a Slurm job starts, is requeued or held, fails or ends.
    """

    run: RunConfig
    cluster: ClusterConfig
    dry_run: bool
    notify: Sequence[str] = ()
    meets_over_mpi: ClassVar[bool] = False  # its ranks form an MPI world

    def job_cluster(self) -> ClusterConfig:
        """What its job asks the cluster for."""
        return self.cluster

    def check(self) -> None:
        """Refuse what cannot run, before anything starts.

        Raises:
            InputError: one sentence about the first thing that is wrong.
        """
        typed.check(self)
        for channel in self.notify:
            require(channel in CHANNELS, f"notify={channel}: must be of {', '.join(CHANNELS)}.")
        self.cluster.check()
