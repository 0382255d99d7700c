"""Everything of `python launch/plan.py`: a pretraining command, and what to vary."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from conf.errors import require
from conf.limits import Count, Positive
from conf.schema.pretrain import PretrainConfig

NODES = (1, 2, 4, 8)


@dataclass
class PlanConfig(PretrainConfig):
    """A plan: the layouts of a pretraining run with their time, cost and footprint.

    Attributes:
        nodes: numbers of nodes to look at; cluster.nodes above 1 replaces the default list.
        budget: leave out layouts that cost more, in the site's units; null is no limit.
        hours: leave out layouts that take longer; null is no limit.
        each: rows shown for each number of nodes; all rows are in plan.json.
        calibrate: a run (name or folder) whose measured steps correct this and later plans for its cluster.
        compare: a run whose recorded figures are set beside the predicted ones; all: every run below runs/.
    """

    nodes: list[Count] = field(default_factory=lambda: [*NODES])
    budget: Positive | None = None
    hours: Positive | None = None
    each: Count = 3
    calibrate: str | None = None
    compare: str | None = None

    def pretraining(self) -> PretrainConfig:
        """The pretraining command alone."""
        return PretrainConfig(**{one.name: getattr(self, one.name) for one in fields(PretrainConfig)})

    def node_counts(self) -> list[int]:
        """The numbers of nodes to look at, each once."""
        if self.cluster.nodes > 1 and self.nodes == [*NODES]:
            return [self.cluster.nodes]
        return sorted(set(self.nodes))

    def check(self) -> None:
        """Refuse an empty list; layouts that cannot be are left out by the plan itself."""
        self.model.check()
        for key in ("compare", "calibrate"):
            require(getattr(self, key) != "", f"{key}=: give a run's name or folder, or leave it out.")
        require(len(self.nodes) > 0, "nodes=[]: give at least one number of nodes, nodes=[1,2].")
