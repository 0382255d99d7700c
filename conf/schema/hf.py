"""Typed configurations of export, import_hf, generate and eval. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.refusal import require, require_choice
from conf.schema.cluster import ClusterConfig
from conf.schema.model import ModelConfig
from conf.schema.run import RunConfig

HF_DTYPES = ("fp32", "bf16", "fp16")
GGUF_DTYPES = ("f32", "f16", "q8_0")
TASKS = ("elm_cloze_nl", "elm_cloze_en", "elm_title_nl", "elm_title_en")


@dataclass
class DatasetChoice:
    """Another place of the dataset than the one the source's config names; null is that one."""

    dir: str | None = None


@dataclass
class ExportConfig:
    """Everything of `python launch/export.py`.

    Attributes:
        run: the run being written; the model lies in `<run.dir>/model` or `<run.dir>/model.gguf`.
        source: the run (name or folder) or Hugging Face folder to read.
        step: which checkpoint; null is the newest.
        adapter: a PEFT folder to merge into the weights, in fp32.
        format: hf or gguf.
        dtype: hf: fp32, bf16, fp16; gguf: f32, f16, q8_0; null is what the run trained in.
        shard_gb: largest safetensors file, 10^9 bytes.
        licence: of the weights, for the card; null is unknown.
        grams_per_kwh: CO2 of a kilowatt-hour where the model was trained; null leaves the card's CO2 unknown.
    """

    run: RunConfig
    source: str
    step: int | None = None
    adapter: str | None = None
    format: str = "hf"
    dtype: str | None = None
    shard_gb: float = 2.0
    licence: str | None = None
    grams_per_kwh: float | None = None
    data: DatasetChoice = field(default_factory=DatasetChoice)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False

    def check(self) -> None:
        """Refuse values outside their lists."""
        require_choice("format", self.format, ("hf", "gguf"))
        dtypes = HF_DTYPES if self.format == "hf" else GGUF_DTYPES
        require_choice("dtype", self.dtype, (None, *dtypes))
        require(self.step is None or self.step >= 0, f"step={self.step}: must be at least 0.")
        require(self.shard_gb > 0, f"shard_gb={self.shard_gb}: must be above 0.")
        grams = self.grams_per_kwh
        require(grams is None or grams >= 0, f"grams_per_kwh={grams}: must be at least 0.")


@dataclass
class GenerateConfig:
    """Everything of `python launch/generate.py`.

    Attributes:
        source: a run, tuned or not, or a Hugging Face folder.
        adapter: a PEFT folder or finetune run whose adapter is put on top.
        prompts: file with one prompt per line; null reads standard input, at a terminal as a conversation.
        chat: put each prompt into the template the model was tuned with; null does so for tuned models.
        max_new_tokens: length at most.
        temperature: 0 always takes the likeliest token.
        top_p: sample from the likeliest tokens that hold this share; 1 is all.
        top_k: sample from this many likeliest tokens; 0 is all.
        repetition_penalty: 1 is none.
        seed: of the sampling.
    """

    source: str
    adapter: str | None = None
    prompts: str | None = None
    chat: bool | None = None
    max_new_tokens: int = 100
    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.1
    seed: int = 1234

    def check(self) -> None:
        """Refuse values outside their ranges."""
        require(self.max_new_tokens >= 1, f"max_new_tokens={self.max_new_tokens}: must be at least 1.")
        require(self.temperature >= 0, f"temperature={self.temperature}: must be at least 0.")
        require(0 < self.top_p <= 1, f"top_p={self.top_p}: must be above 0 and at most 1.")
        require(self.top_k >= 0, f"top_k={self.top_k}: must be at least 0.")
        penalty = self.repetition_penalty
        require(penalty > 0, f"repetition_penalty={penalty}: must be above 0.")


@dataclass
class ImportConfig:
    """Everything of `python launch/import_hf.py`.

    Attributes:
        run: the run being written; its checkpoint at step 0 starts pretraining or tuning in any layout.
        source: a Hugging Face Llama folder, or a run that was exported.
        model: read from the source's config.json by the launcher.
    """

    run: RunConfig
    source: str
    model: ModelConfig | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False


@dataclass
class EvalConfig:
    """Everything of `python launch/eval.py`.

    Attributes:
        run: the run being written: evaluation.json, .md and .png.
        source: a run or a Hugging Face folder, or a list of them to set side by side.
        split: the documents to measure on, train or valid; null skips perplexity.
        max_documents: the first so many of them; null is all.
        window: tokens a prediction sees at most; null is the model's longest sequence.
        tasks: names of tasks in elm_megatron/evaluate/tasks/, or paths of lm-eval task files; [] skips them.
        limit: items per task; null is all.
        batch_size: items at a time.
        data: the dataset with the documents; null is the one the first model was trained on.
    """

    run: RunConfig
    source: str | list[str]
    split: str | None = "valid"
    max_documents: int | None = None
    window: int | None = None
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    limit: int | None = None
    batch_size: int = 8
    data: DatasetChoice = field(default_factory=DatasetChoice)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False

    @property
    def sources(self) -> list[str]:
        """The models, in the order given."""
        return [self.source] if isinstance(self.source, str) else self.source

    def check(self) -> None:
        """Refuse values outside their lists and ranges."""
        require_choice("split", self.split, (None, "train", "valid"))
        require(len(self.sources) > 0, "source=[]: give at least one model.")
        require(len(set(self.sources)) == len(self.sources), f"source={self.sources}: a model stands twice.")
        for key in ("max_documents", "window", "limit", "batch_size"):
            value = getattr(self, key)
            least = 2 if key == "window" else 1
            require(value is None or value >= least, f"{key}={value}: must be at least {least}.")
        require(self.split is not None or bool(self.tasks), "split=null and tasks=[]: nothing to evaluate.")
