"""How checkpoints are evaluated while a run goes on: the group `eval` of pretrain and finetune."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from conf.errors import require
from conf.limits import Count
from conf.schema.cluster import ClusterConfig, Duration
from conf.schema.hf import TASKS


@dataclass
class CheckpointEvaluation:
    """Measures each kept checkpoint beside the training: <run>/evaluations/step-<N>.json.

    Perplexity and bits per byte of the validation documents, by language, and the bits per byte of the right
    answers of tasks.

    Attributes:
        every_checkpoint: evaluate each; on Slurm as a job of its own, here as a process of low priority.
        device: of that job on Slurm, cpu or gpu; null is `cluster.device`. Here it is always the CPU.
        time: limit of that job on Slurm; null is `cluster.time`.
        max_documents: the first so many validation documents; null is all.
        tasks: names of tasks in elm_megatron/evaluate/tasks/ or of lm-eval, or paths of task files; [] for
            none.
        limit: items per task; null is all.
        task_data: folder with data sets of the hub, each <owner>/<name>/ with .jsonl or .parquet files.
    """

    every_checkpoint: bool = False
    device: Literal["cpu", "gpu"] | None = None
    time: Duration | None = None
    max_documents: Count | None = None
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    limit: Count | None = None
    task_data: str | None = None

    def check(self, cluster: ClusterConfig) -> None:
        """Refuse what the place of the run cannot do.

        Args:
            cluster: where the run trains.
        """
        if not self.every_checkpoint:
            return
        require(
            cluster.executor != "allocation",
            f"eval.every_checkpoint=true: cluster={cluster.name} is one srun in an allocation, which takes "
            "no other jobs; use a cluster with sbatch or cluster=local, or measure afterwards with "
            "launch/eval.py source=<run>@<step>.",
        )
        require(
            self.device != "gpu" or cluster.executor == "local" or cluster.gpus_per_node > 0,
            f"eval.device=gpu: cluster.gpus_per_node={cluster.gpus_per_node}, so that its job would have no "
            "GPU; use cpu.",
        )
