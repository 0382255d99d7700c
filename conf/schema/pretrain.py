"""Everything of `python launch/pretrain.py`, and the checks of combinations of its groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.errors import require
from conf.schema.cluster import ClusterConfig
from conf.schema.data import TrainingData
from conf.schema.evaluation import CheckpointEvaluation
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig, Ranks
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.run import RunConfig
from conf.schema.train import TrainConfig


@dataclass
class PretrainConfig(Ranks):
    """Everything of `python launch/pretrain.py`.

    Attributes:
        force: start although the planner says that a rank does not fit its GPU.
    """

    run: RunConfig
    model: ModelConfig
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    data: TrainingData
    train: TrainConfig
    eval: CheckpointEvaluation = field(default_factory=CheckpointEvaluation)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    force: bool = False
    notify: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Refuse what cannot run, before anything starts."""
        super().check()
        self.data.check()
        self.eval.check(self.cluster)
        require(
            not self.data.blend or self.train.epochs is None,
            f"train.epochs={self.train.epochs}: an epoch is of one dataset and data.blend names "
            f"{len(self.data.blend)}; give train.steps.",
        )
        require(
            self.parallel.cp == 1 or not self.data.reset_attention_mask,
            f"data.reset_attention_mask=true: documents are kept apart only with parallel.cp=1, found "
            f"{self.parallel.cp}.",
        )
        on_gpu = self.cluster.device == "gpu"
        require(
            on_gpu or self.train.precision != "fp8",
            "train.precision=fp8 needs Transformer Engine on GPUs; with cluster.device=cpu fp32 and bf16 are "
            "allowed.",
        )
        self.check_layout()

    def check_layout(self) -> None:
        """Refuse a batch or a length that the layout cannot have. The planner asks it of many layouts."""
        self.parallel.check(self.model, self.world_size)
        self.train.check(self.model, self.dp)
        for size in self.train.batch_sizes():
            micro_batches = size // (self.train.least_micro_batch * self.dp)
            require(
                self.parallel.vpp == 1 or micro_batches % self.parallel.pp == 0,
                f"parallel.vpp={self.parallel.vpp}: the {micro_batches} micro-batches of a step must be a "
                f"multiple of parallel.pp={self.parallel.pp}; change train.micro_batch_size.",
            )
        unit = self.parallel.sequence_unit
        require(
            self.train.seq_length % unit == 0,
            f"train.seq_length={self.train.seq_length} is not a multiple of {unit}, which "
            f"parallel.cp={self.parallel.cp}, parallel.tp={self.parallel.tp} and "
            f"parallel.sp={str(self.parallel.sp).lower()} need.",
        )
