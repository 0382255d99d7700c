"""The stage `compare` of a chain: a tuned model beside the one before it."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.schema.cluster import ClusterConfig
from conf.schema.run import Command, RunConfig
from conf.schema.tune import DpoConfig


@dataclass
class CompareConfig(Command):
    """A tuned model beside the one before it, on preferences that were held out.

    Attributes:
        run: the run being written: comparison.json.
        source: the new model and the present one.
        dpo: the pairs, and which share of them was held out.
        held_out: files of more pairs, which tuning did not read.
    """

    run: RunConfig
    source: list[str]
    dpo: DpoConfig
    held_out: list[str] = field(default_factory=list)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    notify: list[str] = field(default_factory=list)

    def job_cluster(self) -> ClusterConfig:
        """One process, on a GPU where the cluster has any."""
        return self.cluster.for_one_process()
