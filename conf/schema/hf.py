"""Typed configurations of export, import_hf, generate and eval. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from conf import typed
from conf.errors import require, shown
from conf.limits import Count, Natural, NotNegative, Positive, Seed, Within
from conf.schema.cluster import ClusterConfig
from conf.schema.institution import Institution
from conf.schema.model import ModelConfig
from conf.schema.run import Command, RunConfig

HF_DTYPES = ("fp32", "bf16", "fp16")
GGUF_DTYPES = ("f32", "f16", "q8_0")
TASKS = ("elm_cloze_nl", "elm_cloze_en", "elm_title_nl", "elm_title_en")


@dataclass
class DatasetChoice:
    """Where the dataset is.

    Attributes:
        dir: the dataset, where it is not at the place the source's config names; null is that place.
    """

    dir: str | None = None


@dataclass
class TaskData:
    """Data of tasks that come from elsewhere, and what is asked of every item.

    Attributes:
        task_data: folder with data sets of the hub, each <owner>/<name>/ with .jsonl or .parquet files.
        decontaminate: look for each item in the training documents; results are given with and without.
    """

    task_data: str | None = None
    decontaminate: bool = True


@dataclass
class Recall:
    """What `memorization=true` draws from the dataset of a model.

    Attributes:
        works: works of each split at most; those that are too short for a window are passed over and counted.
        windows: windows of a work at most; they do not overlap.
        prompt_tokens: tokens that the model is given.
        continued_tokens: tokens behind them that it must continue with.
        seed: of the draw.
    """

    works: Count = 200
    windows: Count = 1
    prompt_tokens: Count = 50
    continued_tokens: Count = 50
    seed: Seed = 1234

    @property
    def tokens(self) -> int:
        """Tokens of a window."""
        return self.prompt_tokens + self.continued_tokens


@dataclass
class ExportConfig(Command):
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
        grams_per_kwh: CO2 of a kilowatt-hour where the model was trained; null is what each run's site names.
        bundle: write the documents to publish into the folder; null does so for a model whose dataset has a
            manifest.
        recipients: who gets the export, added to those that run.json keeps: a notice of a take-down names
            them. The card does not.
    """

    run: RunConfig
    source: str
    step: Natural | None = None
    adapter: str | None = None
    format: Literal["hf", "gguf"] = "hf"
    dtype: str | None = None
    shard_gb: Positive = 2.0
    licence: str | None = None
    grams_per_kwh: NotNegative | None = None
    bundle: bool | None = None
    institution: Institution = field(default_factory=Institution)
    recipients: list[str] = field(default_factory=list)
    data: DatasetChoice = field(default_factory=DatasetChoice)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    notify: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Refuse a dtype that the format does not have, and a recipient without a name."""
        super().check()
        require(all(map(str.strip, self.recipients)), f"recipients={self.recipients}: a name is empty.")
        dtypes = HF_DTYPES if self.format == "hf" else GGUF_DTYPES
        allowed = f"allowed are null, {', '.join(dtypes)}"
        require(self.dtype in (None, *dtypes), f"dtype={shown(self.dtype)}: {allowed}.")
        folder = self.format == "hf" or not self.bundle
        require(folder, "bundle=true: a GGUF file has no folder for documents; use format=hf or bundle=null.")

    def job_cluster(self) -> ClusterConfig:
        """One process without a GPU."""
        return self.cluster.without_gpus()


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
    max_new_tokens: Count = 100
    temperature: NotNegative = 0.8
    top_p: Annotated[float, Within(gt=0, le=1)] = 0.95
    top_k: Natural = 0
    repetition_penalty: Positive = 1.1
    seed: int = 1234

    def check(self) -> None:
        """Refuse values outside their ranges."""
        typed.check(self)


@dataclass
class ImportConfig(Command):
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
    notify: list[str] = field(default_factory=list)

    def job_cluster(self) -> ClusterConfig:
        """One process without a GPU."""
        return self.cluster.without_gpus()


@dataclass
class EvalConfig(Command):
    """Everything of `python launch/eval.py`.

    Attributes:
        run: the run being written: evaluation.json, .md and .png.
        source: a run or a Hugging Face folder, or a list of them to set side by side.
        split: the documents to measure on, train or valid; null skips perplexity.
        max_documents: the first so many of them; null is all.
        window: tokens a prediction sees at most; null is the model's longest sequence.
        tasks: names of tasks in elm_megatron/evaluate/tasks/ or of lm-eval, or paths of task files; [] skips
            them.
        limit: items per task; null is all.
        batch_size: items at a time.
        memorization: measure how often the model continues works of its dataset verbatim, training works
            beside held-out ones.
        recall: what that draws.
        data: the dataset with the documents; null is the one the first model was trained on.
    """

    run: RunConfig
    source: str | list[str]
    split: Literal["train", "valid"] | None = "valid"
    max_documents: Count | None = None
    window: Annotated[int, Within(ge=2)] | None = None
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    limit: Count | None = None
    batch_size: Count = 8
    memorization: bool = False
    recall: Recall = field(default_factory=Recall)
    eval: TaskData = field(default_factory=TaskData)
    data: DatasetChoice = field(default_factory=DatasetChoice)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    notify: list[str] = field(default_factory=list)

    @property
    def sources(self) -> list[str]:
        """The models, in the order given."""
        return [self.source] if isinstance(self.source, str) else self.source

    def check(self) -> None:
        """Refuse sources that are none or stand twice, and an evaluation of nothing."""
        super().check()
        require(len(self.sources) > 0, "source=[]: give at least one model.")
        require(len(set(self.sources)) == len(self.sources), f"source={self.sources}: a model stands twice.")
        wanted = self.split is not None or bool(self.tasks) or self.memorization
        require(wanted, "split=null and tasks=[]: nothing to evaluate.")

    def job_cluster(self) -> ClusterConfig:
        """One process, on a GPU where the cluster has any."""
        return self.cluster.for_one_process()


@dataclass
class ReportConfig:
    """Everything of `python launch/report.py`.

    Attributes:
        source: the run to report, its name or folder.
        out: the HTML file; null is <run>/report.html.
    """

    source: str
    out: str | None = None

    def check(self) -> None:
        """Refuse values of another type."""
        typed.check(self)
