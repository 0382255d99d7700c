"""The typed configuration of `python launch/finetune.py`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from conf import typed
from conf.errors import InputError, require
from conf.limits import BelowOne, Count, Natural, NotNegative, Positive, Share, Within
from conf.schema.cluster import ClusterConfig
from conf.schema.evaluation import CheckpointEvaluation
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig, Ranks
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.run import RunConfig
from conf.schema.train import Batches, MicroBatch, TrainConfig

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS: tuple[str, ...] = get_args(Target)
SAMPLE = "pkg://elm_megatron/tune/sample"


@dataclass
class TuneConfig(TrainConfig):
    """The loop as in pretraining, and the adapter. The defaults are those of the published adapter.

    Where a default depends on the stage, pairs (stage=dpo) get the second number: they are few, and want a
    lower rate. conf/tune/<model>.yaml, where there is one, changes the defaults.

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
            Pairs stop by default: the loss on held-out pairs soon begins to rise.
    """

    global_batch_size: Count = typed.follows("${by_stage:32,16}", 32)
    micro_batch_size: MicroBatch = typed.follows("${by_stage:8,2}", 8)
    seq_length: Count = 256
    precision: Literal["fp32", "bf16"] = "bf16"  # type: ignore[assignment]
    lr: Positive = typed.follows("${by_stage:2.0e-5,1.0e-5}", 2e-5)
    min_lr: NotNegative = 0.0
    warmup_steps: Natural = typed.follows("${by_stage:100,5}", 100)
    weight_decay: NotNegative = 0.0
    beta2: BelowOne = 0.999
    save_every: Count = 200
    eval_every: Count = typed.follows("${by_stage:200,20}", 200)
    eval_batches: Batches | None = None
    r: Count = 64
    alpha: Positive = 128.0
    dropout: BelowOne = 0.05
    targets: list[Target] = field(default_factory=lambda: ["q_proj", "v_proj"])
    adapter_precision: Literal["fp32", "bf16"] = "fp32"
    template: str = "alpaca"
    packing: bool = False
    patience: Count | None = typed.follows("${by_stage:null,3}", None)

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
        for key in ("batch_ramp", "warmup_tokens", "z_loss", "goldfish", "goldfish_context"):
            off = getattr(self, key) == getattr(TrainConfig, key)
            require(off, f"{group}.{key}={getattr(self, key)}: is for pretraining alone.")
        require(len(self.targets) > 0, f"tune.targets=[]: give some of {', '.join(TARGETS)}.")
        require(
            len(set(self.targets)) == len(self.targets), f"tune.targets={self.targets}: one stands twice."
        )
        require(
            self.precision == "bf16" or self.adapter_precision == "fp32",
            "tune.adapter_precision=bf16 needs tune.precision=bf16; with fp32 it must be fp32.",
        )


@dataclass
class SftConfig:
    """Instruction data.

    Attributes:
        files: .json, .jsonl, .parquet or .xlsx; pkg:// paths lie in this suite; community is the newest
            export of the web app.
        weights: one per file, how often its examples are seen in an epoch; empty is 1 for each.
        valid_files: examples to measure on; without any a share of `files` is held out.
        valid_fraction: that share, chosen by the hash of the first instruction, at least one example.
        sheet: the worksheet of a spreadsheet that holds dialogues.
    """

    files: list[str] = field(default_factory=lambda: [f"{SAMPLE}/instructions.jsonl"])
    weights: list[Positive] = field(default_factory=list)
    valid_files: list[str] = field(default_factory=list)
    valid_fraction: Share = 0.1
    sheet: str = "Fine-Tuning"

    def check(self) -> None:
        """Refuse weights that do not fit the files."""
        require(
            not self.weights or len(self.weights) == len(self.files),
            f"sft.weights has {len(self.weights)} numbers for the {len(self.files)} files of sft.files.",
        )


@dataclass
class DpoConfig:
    """Preference data and the loss on it (Rafailov et al. 2023).

    Attributes:
        files: .jsonl with prompt, chosen and rejected, or .xlsx with two options and rater columns; community
            is the newest export of the web app.
        valid_fraction: share of the pairs held out, chosen by the hash of the prompt, at least one.
        sheet: the worksheet of a spreadsheet that holds preferences.
        min_agreement: share of raters behind the preferred option; rows below it are skipped and counted.
        beta: strength of the pull towards the reference.
        label_smoothing: share of preferences taken to be wrong (conservative DPO).
    """

    files: list[str] = field(default_factory=lambda: [f"{SAMPLE}/preferences.jsonl"])
    valid_fraction: Share = 0.1
    sheet: str = "Reinforcement Learning"
    min_agreement: Annotated[float, Within(gt=0.5, le=1)] = 1.0
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Within(ge=0, lt=0.5)] = 0.0


@dataclass
class FinetuneConfig(Ranks):
    """Everything of `python launch/finetune.py`.

    Attributes:
        source: the base: a run (`name` or folder, `@step` behind it for an older checkpoint) or a Hugging
            Face folder. A finetune run stands for its base and its adapter, which is then trained on.
        stage: sft learns answers, dpo learns from preferences.
        model: the base's sizes; what the launcher composes is replaced by the source's own.
        force: start although the planner says that a rank does not fit its GPU.
    """

    run: RunConfig
    source: str
    stage: Literal["sft", "dpo"]
    model: ModelConfig
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    sft: SftConfig
    dpo: DpoConfig
    tune: TuneConfig
    eval: CheckpointEvaluation = field(default_factory=CheckpointEvaluation)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    force: bool = False
    notify: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """The data files of the stage."""
        return self.sft.files if self.stage == "sft" else self.dpo.files

    def check(self) -> None:
        """Refuse what cannot run, before anything starts."""
        super().check()
        self.tune.check(self.model, self.dp)
        self.sft.check()
        self.eval.check(self.cluster)
        if not self.files:
            raise InputError(f"{self.stage}.files=[]: give at least one file, {self.stage}.files=[a.jsonl].")
        require(self.parallel.cp == 1, f"parallel.cp={self.parallel.cp}: tuning takes 1; examples are short.")
        require(
            self.stage == "sft" or not self.tune.packing,
            "tune.packing=true: pairs of stage=dpo are not packed; leave it false.",
        )
        require(
            not self.parallel.sp or self.tune.seq_length % self.parallel.tp == 0,
            f"tune.seq_length={self.tune.seq_length} is not a multiple of parallel.tp={self.parallel.tp}, "
            "which parallel.sp=true needs.",
        )
        micro_batches = self.tune.global_batch_size // (self.tune.least_micro_batch * self.dp)
        require(
            self.parallel.vpp == 1 or micro_batches % self.parallel.pp == 0,
            f"parallel.vpp={self.parallel.vpp}: the {micro_batches} micro-batches of a step must be a "
            f"multiple of parallel.pp={self.parallel.pp}; change tune.micro_batch_size.",
        )
