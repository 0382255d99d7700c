"""The configuration of the whole chain, and the configuration of each of its stages. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from conf.limits import Count
from conf.schema.cluster import ClusterConfig
from conf.schema.data import TrainingData
from conf.schema.hf import EvalConfig, ExportConfig
from conf.schema.institution import Institution
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig, Ranks
from conf.schema.preprocess import (
    BuildConfig,
    CleanConfig,
    CorpusConfig,
    DataConfig,
    PreprocessCommand,
    PreprocessConfig,
    TokenizerConfig,
)
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from conf.schema.train import TrainConfig
from conf.schema.tune import DpoConfig, FinetuneConfig, SftConfig, TuneConfig


@dataclass
class PipelineConfig(Ranks):
    """Everything of `python launch/pipeline.py`.

    Stage runs are called `<run.name>-<verb>`, so that one chain's settings never meet another's run folder.

    Attributes:
        prompt: what the exported model continues at the end.
        max_new_tokens: how much it may add.
        force: start although the planner says that a rank does not fit its GPU.
    """

    run: RunConfig
    model: ModelConfig
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    data: DataConfig
    train: TrainConfig
    tune: TuneConfig
    sft: SftConfig
    clean: CleanConfig = field(default_factory=CleanConfig)
    preprocess: BuildConfig = field(default_factory=BuildConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    institution: Institution = field(default_factory=Institution)
    prompt: str = "Het onderzoek naar de haven"
    max_new_tokens: Count = 40
    dry_run: bool = False
    force: bool = False
    notify: list[str] = field(default_factory=list)

    def stage_run(self, verb: str) -> RunConfig:
        """Name and folder of a stage's run."""
        folder = Path(self.run.dir)
        folder = folder.with_name(f"{folder.name}-{verb}")
        return replace(self.run, name=f"{self.run.name}-{verb}", dir=str(folder))

    def _without_training(self) -> ClusterConfig:
        """The cluster of a stage that uses no GPU: what its keys ask of nodes is meant for training."""
        cluster = replace(self.cluster, nodes=1)
        if cluster.cpu_partition in (None, cluster.partition):
            return cluster
        return replace(cluster, memory_gb=None, constraint=None, reservation=None)

    def preprocessing(self) -> PreprocessCommand:
        """The first stage's configuration."""
        return PreprocessCommand(
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            clean=self.clean,
            preprocess=self.preprocess,
            data=self.data,
            institution=self.institution,
            run=self.stage_run("preprocess"),
            cluster=self._without_training(),
        )

    def building(self) -> PreprocessConfig:
        """What the first stage's ranks read."""
        return self.preprocessing().building()

    def pretraining(self) -> PretrainConfig:
        """The second stage's."""
        return PretrainConfig(
            run=self.stage_run("pretrain"),
            model=self.model,
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            data=TrainingData(dir=self.data.dir),
            train=self.train,
            parallel=self.parallel,
            cluster=self.cluster,
            force=self.force,
        )

    def tuning(self) -> FinetuneConfig:
        """The third stage's."""
        return FinetuneConfig(
            run=self.stage_run("finetune"),
            source=self.stage_run("pretrain").dir,
            stage="sft",
            model=self.model,
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            sft=self.sft,
            dpo=DpoConfig(),
            tune=self.tune,
            parallel=self.parallel,
            cluster=self.cluster,
            force=self.force,
        )

    def exporting(self) -> ExportConfig:
        """The fourth stage's."""
        return ExportConfig(
            run=self.stage_run("export"),
            source=self.stage_run("finetune").dir,
            institution=self.institution,
            cluster=self._without_training(),
        )

    def measuring(self) -> EvalConfig:
        """The last stage's."""
        return EvalConfig(
            run=self.stage_run("eval"), source=self.stage_run("export").dir, cluster=self.cluster
        )

    def check(self) -> None:
        """Refuse what any stage would refuse, before the first one starts."""
        super().check()
        self.preprocessing().check()
        self.pretraining().check()
        self.tuning().check()
        self.exporting().check()
        self.measuring().check()
