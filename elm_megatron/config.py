"""The typed configuration of every verb, and the checks that need no torch.

conf/*.yaml is composed by Hydra and merged into these dataclasses (see compose.py), so that an unknown
key or a wrong type is refused before anything starts. `check()` refuses impossible combinations with one
sentence that names the key, what was found and what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from data_prep.config import CorpusConfig, PreprocessConfig, TokenizerConfig
from elm_megatron.cluster import ClusterConfig
from elm_megatron.loop_config import TrainConfig
from elm_megatron.refusal import divisors, require
from elm_megatron.training_data import TrainingData

VOCAB_MULTIPLE = 128  # independent of tp, so that every layout holds the same padded vocabulary


@dataclass
class RunConfig:
    """The run being written: its name and its folder."""

    name: str
    dir: str


@dataclass
class ModelConfig:
    """Architecture, Llama-2 style (RMSNorm, SwiGLU, rotary positions, no biases)."""

    name: str
    hidden_size: int
    ffn_hidden_size: int
    num_layers: int
    num_attention_heads: int
    num_query_groups: int
    max_position_embeddings: int
    vocab_size: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    init_std: float = 0.02

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary rounded up to a multiple of 128."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def parameters(self) -> int:
        """All weights: embedding, layers with two norms each, final norm, and the output head unless tied."""
        norms = (2 * self.num_layers + 1) * self.hidden_size
        embedding = 0 if self.tie_embeddings else self.hidden_size * self.padded_vocab_size
        return self.matmul_parameters() + embedding + norms

    def matmul_parameters(self) -> int:
        """Weights that take part in a matrix product per token: all linear layers and the output head."""
        attention = (
            self.hidden_size * self.head_dim * (2 * self.num_attention_heads + 2 * self.num_query_groups)
        )
        mlp = 3 * self.hidden_size * self.ffn_hidden_size
        return self.num_layers * (attention + mlp) + self.hidden_size * self.padded_vocab_size

    def flops_per_token(self, seq_length: int) -> float:
        """FLOPs of forward and backward per token: 6 per matmul weight + causal attention.

        The attention term counts QK^T and AV, 2 FLOPs a multiply-add, three passes, half of the square
        (PaLM, appendix B, with the causal half).
        """
        attention = 6 * self.num_layers * self.num_attention_heads * self.head_dim * seq_length
        return 6.0 * self.matmul_parameters() + attention

    def check(self) -> None:
        """Refuse sizes that do not fit each other."""
        for key in ("hidden_size", "ffn_hidden_size", "num_layers", "num_attention_heads", "vocab_size"):
            require(getattr(self, key) > 0, f"model.{key}={getattr(self, key)}: must be at least 1.")
        for key in ("rope_theta", "norm_eps"):
            require(getattr(self, key) > 0, f"model.{key}={getattr(self, key)}: must be above 0.")
        require(self.init_std >= 0, f"model.init_std={self.init_std}: must be at least 0.")
        heads, groups = self.num_attention_heads, self.num_query_groups
        require(
            self.hidden_size % heads == 0,
            f"model.num_attention_heads={heads} does not divide model.hidden_size={self.hidden_size}.",
        )
        require(
            self.head_dim % 2 == 0, f"model.hidden_size/num_attention_heads={self.head_dim}: must be even."
        )
        require(
            groups > 0 and heads % groups == 0,
            f"model.num_query_groups={groups}: must divide model.num_attention_heads={heads}, "
            f"allowed are {divisors(heads)}.",
        )


@dataclass
class ParallelConfig:
    """How one model is cut over ranks; dp is what remains of the world."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    cp: int = 1
    sp: bool = False
    auto: bool = False  # choose the rest for the model and the cluster (planner/layout.py)

    @property
    def model_ranks(self) -> int:
        """Ranks that hold one copy of the model: tp · pp · cp."""
        return self.tp * self.pp * self.cp

    @property
    def sequence_unit(self) -> int:
        """What train.seq_length must be a multiple of: cp takes 2·cp chunks, sp splits them over tp."""
        return (2 * self.cp if self.cp > 1 else 1) * (self.tp if self.sp else 1)

    def check(self, model: ModelConfig, world_size: int) -> None:
        """Refuse a layout that does not fit the model or the world."""
        for key in ("tp", "pp", "vpp", "cp"):
            require(getattr(self, key) >= 1, f"parallel.{key}={getattr(self, key)}: must be at least 1.")
        heads, groups, layers = model.num_attention_heads, model.num_query_groups, model.num_layers
        require(
            heads % self.tp == 0,
            f"parallel.tp={self.tp} does not divide model.num_attention_heads={heads}; "
            f"allowed are {divisors(heads)}.",
        )
        require(
            groups % self.tp == 0,
            f"parallel.tp={self.tp} does not divide model.num_query_groups={groups}; "
            f"allowed are {divisors(groups)}.",
        )
        require(
            model.ffn_hidden_size % self.tp == 0,
            f"parallel.tp={self.tp} does not divide model.ffn_hidden_size={model.ffn_hidden_size}.",
        )
        vocabulary = model.padded_vocab_size
        allowed = divisors(math.gcd(groups, vocabulary))
        require(
            vocabulary % self.tp == 0,
            f"parallel.tp={self.tp} does not divide the padded vocabulary of {vocabulary} "
            f"(model.vocab_size={model.vocab_size} rounded up to a multiple of {VOCAB_MULTIPLE}); of the "
            f"divisors of model.num_query_groups={groups} allowed are {allowed}.",
        )
        require(
            layers % (self.pp * self.vpp) == 0,
            f"parallel.pp·vpp={self.pp * self.vpp} does not divide model.num_layers={layers}; "
            f"allowed are {divisors(layers)}.",
        )
        require(
            self.vpp == 1 or self.pp > 1, f"parallel.vpp={self.vpp} needs parallel.pp of at least 2, found 1."
        )
        require(not self.sp or self.tp > 1, "parallel.sp=true needs parallel.tp of at least 2, found 1.")
        require(
            world_size % self.model_ranks == 0,
            f"parallel.tp·pp·cp={self.model_ranks} does not divide the {world_size} ranks of the cluster "
            "(cluster.nodes × cluster.tasks_per_node).",
        )


class Ranks:
    """How many ranks a verb with a layout and a cluster has."""

    parallel: ParallelConfig
    cluster: ClusterConfig

    @property
    def world_size(self) -> int:
        """Ranks of the whole job."""
        return self.cluster.nodes * (self.cluster.tasks_per_node or self._default_tasks_per_node())

    def _default_tasks_per_node(self) -> int:
        if self.cluster.gpus_per_node:
            return self.cluster.gpus_per_node
        return -(-self.parallel.model_ranks // self.cluster.nodes)

    @property
    def dp(self) -> int:
        """Data-parallel copies of the model."""
        return self.world_size // self.parallel.model_ranks


@dataclass
class PretrainConfig(Ranks):
    """Everything of `python launch/pretrain.py`."""

    run: RunConfig
    model: ModelConfig
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    data: TrainingData
    train: TrainConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False

    def check(self) -> None:
        """Refuse what cannot run, before anything starts."""
        self.model.check()
        self.parallel.check(self.model, self.world_size)
        self.train.check(self.model, self.dp)
        self.data.check()
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
        for size in self.train.batch_sizes():
            micro_batches = size // (self.train.micro_batch_size * self.dp)
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


@dataclass
class PreprocessCommand(PreprocessConfig):
    """Everything of `python launch/preprocess.py`: the build's own keys, and where it runs."""

    run: RunConfig = field(default_factory=lambda: RunConfig("preprocess", "runs/preprocess"))
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False

    def check(self) -> None:
        """Refuse what the build or the cluster would refuse."""
        super().check()
        require(
            self.preprocess.ranks % self.cluster.nodes == 0,
            f"preprocess.ranks={self.preprocess.ranks}: must be a multiple of "
            f"cluster.nodes={self.cluster.nodes}, so that every node has as many.",
        )

    def building(self) -> PreprocessConfig:
        """The build's part alone, which a rank reads."""
        return PreprocessConfig(**{item.name: getattr(self, item.name) for item in fields(PreprocessConfig)})
