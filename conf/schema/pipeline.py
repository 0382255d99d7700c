"""The configuration of the whole chain, and the configuration of each of its stages. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from conf.errors import require
from conf.limits import Count
from conf.schema.cluster import ClusterConfig
from conf.schema.compare import CompareConfig
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
from conf.schema.serve import ServeConfig
from conf.schema.train import TrainConfig
from conf.schema.tune import DpoConfig, FinetuneConfig, SftConfig, TuneConfig

Verb = Literal["community", "preprocess", "pretrain", "finetune", "dpo", "export", "eval", "compare", "serve"]
VERBS: tuple[str, ...] = get_args(Verb)


@dataclass
class PipelineConfig(Ranks):
    """Everything of `python launch/pipeline.py`.

    Stage runs are called `<run.name>-<verb>`, so that one chain's settings never meet another's run folder.

    Attributes:
        stages: of the chain, in this order: community (an export of the web app), preprocess, pretrain,
            finetune, dpo, export, eval, compare (with the model before, on held-out pairs), serve. null is
            preprocess, pretrain, finetune and export, and on a cluster eval.
        source: the model that the first tuning stage starts from; null is what pretrain makes.
        dpo_tune: the loop of stage dpo, as `tune` is that of stage finetune.
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
    dpo_tune: TuneConfig
    dpo: DpoConfig = field(default_factory=DpoConfig)
    stages: list[Verb] | None = None
    source: str | None = None
    clean: CleanConfig = field(default_factory=CleanConfig)
    preprocess: BuildConfig = field(default_factory=BuildConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    institution: Institution = field(default_factory=Institution)
    prompt: str = "Uit het onderzoek naar de haven blijkt dat"
    max_new_tokens: Count = 40
    dry_run: bool = False
    force: bool = False
    notify: list[str] = field(default_factory=list)

    @property
    def verbs(self) -> list[str]:
        """The stages of this chain."""
        if self.stages is not None:
            return list(self.stages)
        also = ["eval"] if self.cluster.executor == "slurm" else []
        return ["preprocess", "pretrain", "finetune", "export", *also]

    def output_before(self, verb: str) -> str:
        """The model that a stage reads: that of the nearest stage before it that makes one, or `source`."""
        makers = ("pretrain", "finetune", "dpo")
        before = [one for one in self.verbs if one in makers and VERBS.index(one) < VERBS.index(verb)]
        return self.stage_run(before[-1]).dir if before else str(self.source)

    @property
    def present(self) -> str:
        """The model that a tuned one is compared with."""
        return self.source or self.stage_run("pretrain").dir

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
        """Of learning answers."""
        return self._tuning("finetune")

    def preferring(self) -> FinetuneConfig:
        """Of learning from preferences."""
        return self._tuning("dpo")

    def _tuning(self, verb: str) -> FinetuneConfig:
        return FinetuneConfig(
            run=self.stage_run(verb),
            source=self.output_before(verb),
            stage="dpo" if verb == "dpo" else "sft",
            model=self.model,
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            sft=self.sft,
            dpo=self.dpo,
            tune=self.dpo_tune if verb == "dpo" else self.tune,
            parallel=self.parallel,
            cluster=self.cluster,
            force=self.force,
        )

    def exporting(self) -> ExportConfig:
        """Of the Hugging Face folder."""
        return ExportConfig(
            run=self.stage_run("export"),
            source=self.output_before("export"),
            institution=self.institution,
            cluster=self._without_training(),
        )

    def measuring(self) -> EvalConfig:
        """Of the scores."""
        made = self.stage_run("export").dir if "export" in self.verbs else self.output_before("eval")
        return EvalConfig(run=self.stage_run("eval"), source=made, cluster=self.cluster)

    def comparing(self) -> CompareConfig:
        """Of the new model beside the present one."""
        return CompareConfig(
            run=self.stage_run("compare"),
            source=[self.output_before("compare"), self.present],
            dpo=self.dpo,
            cluster=self.cluster,
        )

    def serving(self) -> ServeConfig:
        """Of the new model beside the present one, which people compare blindly."""
        made = self.output_before("serve")
        return ServeConfig(
            run=self.stage_run("serve"),
            source=list(dict.fromkeys([made, *([self.present] if "compare" in self.verbs else [])])),
            cluster=self.cluster,
        )

    def check(self) -> None:
        """Refuse what any stage would refuse, before the first one starts."""
        super().check()
        self._check_stages()
        configs = {
            "preprocess": self.preprocessing,
            "pretrain": self.pretraining,
            "finetune": self.tuning,
            "dpo": self.preferring,
            "export": self.exporting,
            "eval": self.measuring,
            "compare": self.comparing,
            "serve": self.serving,
        }
        for verb in ("preprocess", "pretrain", "finetune", "export", "eval", *self.verbs):
            if verb in configs:
                configs[verb]().check()

    def _check_stages(self) -> None:
        order = [VERBS.index(verb) for verb in self.verbs]
        require(bool(order), "stages=[]: give at least one.")
        require(
            order == sorted(set(order)),
            f"stages={self.verbs}: each is given once, in the order {', '.join(VERBS)}.",
        )
        makes = "pretrain" in self.verbs
        reads = [verb for verb in self.verbs if VERBS.index(verb) > VERBS.index("pretrain")]
        require(
            makes or not reads or self.source is not None,
            f"source=null: {reads[0] if reads else ''} needs a model; give source=<run or folder>, or let "
            "stages have pretrain.",
        )
        require(
            not (makes and self.source), f"source={self.source}: stages has pretrain, which makes a model."
        )
        tunes = "finetune" in self.verbs or "dpo" in self.verbs
        require(tunes or "compare" not in self.verbs, "stages: compare needs finetune or dpo before it.")
