"""The typed configuration of `python launch/finetune.py`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.errors import InputError
from conf.refusal import require, require_choice
from conf.schema.cluster import ClusterConfig
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig, Ranks
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.run import RunConfig
from conf.schema.train import TrainConfig

STAGES = ("sft", "dpo")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass
class TuneConfig(TrainConfig):
    """The loop as in pretraining, and the adapter. Defaults are the published run's.

    Attributes:
        seq_length: longest example; what goes beyond is cut from the response and counted.
        r: rank of the adapter.
        alpha: the adapter is scaled by alpha / r.
        dropout: on the adapter's input.
        targets: projections that get one, out of `TARGETS`.
        adapter_precision: fp32 or bf16, of the adapter's weights in the forward pass.
        template: a file of chat/templates/ by name, or a path.
        packing: several examples in one row, kept apart; otherwise rows are padded, grouped by length.
        patience: stop after this many validations without a better one and keep the best; null is never.
    """

    epochs: float | None = 3.0
    global_batch_size: int = 32
    micro_batch_size: int = 8
    lr: float = 2e-5
    min_lr: float = 0.0
    warmup_steps: int = 100
    weight_decay: float = 0.0
    beta2: float = 0.999
    r: int = 64
    alpha: float = 128.0
    dropout: float = 0.05
    targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    adapter_precision: str = "fp32"
    template: str = "alpaca"
    packing: bool = False
    patience: int | None = None

    def trainable_parameters(self, model: ModelConfig) -> int:
        """Parameters of the adapter: r · (in + out) for each projection of each layer."""
        hidden, ffn = model.hidden_size, model.ffn_hidden_size
        q, kv = model.num_attention_heads * model.head_dim, model.num_query_groups * model.head_dim
        both = {
            "q_proj": hidden + q,
            "k_proj": hidden + kv,
            "v_proj": hidden + kv,
            "o_proj": q + hidden,
            "gate_proj": hidden + ffn,
            "up_proj": hidden + ffn,
            "down_proj": ffn + hidden,
        }
        return model.num_layers * self.r * sum(both[target] for target in self.targets)

    def check(self, model: ModelConfig, dp: int, group: str = "tune") -> None:
        """Refuse what cannot be."""
        super().check(model, dp, group)
        for key in ("batch_ramp", "warmup_tokens", "z_loss"):
            require(not getattr(self, key), f"{group}.{key}={getattr(self, key)}: is for pretraining alone.")
        require(self.r >= 1, f"tune.r={self.r}: must be at least 1.")
        require(self.alpha > 0, f"tune.alpha={self.alpha}: must be above 0.")
        require(0 <= self.dropout < 1, f"tune.dropout={self.dropout}: must be at least 0 and below 1.")
        require(len(self.targets) > 0, f"tune.targets=[]: give some of {', '.join(TARGETS)}.")
        for target in self.targets:
            require_choice("tune.targets", target, TARGETS)
        require(
            len(set(self.targets)) == len(self.targets), f"tune.targets={self.targets}: one stands twice."
        )
        require_choice("tune.adapter_precision", self.adapter_precision, ("fp32", "bf16"))
        require_choice("tune.precision", self.precision, ("fp32", "bf16"))
        require(
            self.precision == "bf16" or self.adapter_precision == "fp32",
            "tune.adapter_precision=bf16 needs tune.precision=bf16; with fp32 it must be fp32.",
        )
        require(
            self.patience is None or self.patience >= 1,
            f"tune.patience={self.patience}: must be at least 1.",
        )


@dataclass
class SftConfig:
    """Instruction data.

    Attributes:
        files: .json, .jsonl, .parquet or .xlsx; pkg:// paths lie in this suite.
        weights: one per file, how often its examples are seen in an epoch; empty is 1 for each.
        valid_files: examples to measure on; without any a share of `files` is held out.
        valid_fraction: that share, chosen by the hash of the first instruction, at least one example.
        sheet: the worksheet of a spreadsheet that holds dialogues.
    """

    files: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    valid_files: list[str] = field(default_factory=list)
    valid_fraction: float = 0.05
    sheet: str = "Fine-Tuning"

    def check(self) -> None:
        """Refuse shares outside their range."""
        fraction = self.valid_fraction
        require(0 < fraction < 1, f"sft.valid_fraction={fraction}: must be above 0 and below 1.")
        require(
            not self.weights or len(self.weights) == len(self.files),
            f"sft.weights has {len(self.weights)} numbers for the {len(self.files)} files of sft.files.",
        )
        require(all(w > 0 for w in self.weights), f"sft.weights={self.weights}: must be above 0.")


@dataclass
class DpoConfig:
    """Preference data and the loss on it (Rafailov et al. 2023).

    Attributes:
        files: .jsonl with prompt, chosen and rejected, or .xlsx with two options and rater columns.
        valid_fraction: share of the pairs held out, chosen by the hash of the prompt, at least one.
        sheet: the worksheet of a spreadsheet that holds preferences.
        min_agreement: share of raters behind the preferred option; rows below it are skipped and counted.
        beta: strength of the pull towards the reference.
        label_smoothing: share of preferences taken to be wrong (conservative DPO).
    """

    files: list[str] = field(default_factory=list)
    valid_fraction: float = 0.1
    sheet: str = "Reinforcement Learning"
    min_agreement: float = 1.0
    beta: float = 0.1
    label_smoothing: float = 0.0

    def check(self) -> None:
        """Refuse numbers outside their ranges."""
        require(self.beta > 0, f"dpo.beta={self.beta}: must be above 0.")
        smoothing, agreement, fraction = self.label_smoothing, self.min_agreement, self.valid_fraction
        require(0 <= smoothing < 0.5, f"dpo.label_smoothing={smoothing}: must be at least 0 and below 0.5.")
        require(0.5 < agreement <= 1, f"dpo.min_agreement={agreement}: must be above 0.5 and at most 1.")
        require(0 < fraction < 1, f"dpo.valid_fraction={fraction}: must be above 0 and below 1.")


@dataclass
class FinetuneConfig(Ranks):
    """Everything of `python launch/finetune.py`.

    Attributes:
        source: the base: a run (`name` or folder, `@step` behind it for an older checkpoint) or a Hugging
            Face folder. A finetune run stands for its base and its adapter, which is then trained on.
        model: the base's sizes; what the launcher composes is replaced by the source's own.
    """

    run: RunConfig
    source: str
    stage: str
    model: ModelConfig
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    sft: SftConfig
    dpo: DpoConfig
    tune: TuneConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False

    @property
    def files(self) -> list[str]:
        """The data files of the stage."""
        return self.sft.files if self.stage == "sft" else self.dpo.files

    def check(self) -> None:
        """Refuse what cannot run, before anything starts."""
        require_choice("stage", self.stage, STAGES)
        self.model.check()
        self.parallel.check(self.model, self.world_size)
        self.tune.check(self.model, self.dp)
        self.sft.check()
        self.dpo.check()
        if not self.files:
            raise InputError(f"{self.stage}.files=[]: give at least one file, {self.stage}.files=[a.jsonl].")
        require(self.parallel.cp == 1, f"parallel.cp={self.parallel.cp}: tuning takes 1; examples are short.")
        require(
            self.stage == "sft" or not self.tune.packing,
            "tune.packing=true: pairs of stage=dpo are not packed; leave it false.",
        )
        for sp_unit in [self.parallel.tp] if self.parallel.sp else []:
            require(
                self.tune.seq_length % sp_unit == 0,
                f"tune.seq_length={self.tune.seq_length} is not a multiple of parallel.tp={sp_unit}, which "
                "parallel.sp=true needs.",
            )
        micro_batches = self.tune.global_batch_size // (self.tune.micro_batch_size * self.dp)
        require(
            self.parallel.vpp == 1 or micro_batches % self.parallel.pp == 0,
            f"parallel.vpp={self.parallel.vpp}: the {micro_batches} micro-batches of a step must be a "
            f"multiple of parallel.pp={self.parallel.pp}; change tune.micro_batch_size.",
        )
