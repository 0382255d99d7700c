"""The stages of `launch/pipeline.py`: one function each, with what it reads and what it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.schema.pipeline import PipelineConfig
from conf.schema.tune import DpoConfig, FinetuneConfig, SftConfig
from data_prep.dataset import open_dataset
from data_prep.job import Preprocess
from elm_megatron.card import notice
from elm_megatron.community.exports import FOLDER, WORD, held_out_pairs, of_community
from elm_megatron.engine.job import Train
from elm_megatron.evaluate.job import Compare, Eval
from elm_megatron.hf.job import Export
from elm_megatron.planner.layout import settle
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import locate, run_config
from elm_megatron.tune.prepare import adopt, look_at_files
from elm_megatron.tune.tasks import tuning
from slurm.chains import chain, serving
from slurm.jobs import extras, record

HELD_OUT_BEFORE = (
    0.05  # of the chat data, in chains made before finetune.py's default was that of a chain too
)


def community_export(config: PipelineConfig) -> Path | None:
    """The export that the stage `community` makes; None for a chain without that stage."""
    return (FOLDER / "exports" / config.run.name).absolute() if "community" in config.verbs else None


def stages(config: PipelineConfig) -> list[chain.Stage]:
    """The links of the chain, each with what it reads and writes; the community's export is there already.

    Raises:
        InputError: a source or an export that no stage makes is not there.
    """
    links: list[chain.Stage] = []
    for verb in config.verbs:
        if verb != "community":
            links += STAGES[verb](config)
    return links


def _here(config: PipelineConfig) -> bool:
    return config.cluster.executor != "slurm"


def _makers(config: PipelineConfig) -> tuple[RunFolder, ...]:
    """The runs of this chain that make models."""
    verbs = [verb for verb in ("pretrain", "finetune", "dpo") if verb in config.verbs]
    return tuple(RunFolder(config.stage_run(verb).dir) for verb in verbs)


def _preprocess(config: PipelineConfig) -> list[chain.Stage]:
    build = config.preprocessing()
    making = Preprocess(build.building(), notice.follow_up)
    ranks = 1 if _here(config) else config.preprocess.ranks
    return [
        chain.Stage(
            "preprocess", build, making, ranks, config.corpus.path, config.data.dir,
            Path(config.data.dir) / "manifest.json", resumes=False,
            finished=lambda: not _here(config) and making.finished(),
        )
    ]  # fmt: skip


def _pretrain(config: PipelineConfig) -> list[chain.Stage]:
    train = _settled(config, config.pretraining())
    trained = RunFolder(train.run.dir)

    def dataset() -> str:
        sizes = config.model.vocab_size, config.train.seq_length
        return open_dataset(config.data.dir, config.corpus, *sizes).sha256

    return [
        chain.Stage(
            "pretrain", train, Train(train), train.world_size, config.data.dir, train.run.dir, trained.latest,
            manifest=dataset,
            finished=lambda: not _here(config) and bool(record.resumable(trained, train, dataset())),
        )
    ]  # fmt: skip


def _finetune(config: PipelineConfig) -> list[chain.Stage]:
    return [_tuning(config, _as_begun(config.tuning()), "finetune")]


def _dpo(config: PipelineConfig) -> list[chain.Stage]:
    return [_tuning(config, config.preferring(), "dpo")]


def _tuning(config: PipelineConfig, tune: FinetuneConfig, verb: str) -> chain.Stage:
    """A stage that tunes; files that are there are looked at before anything starts."""
    export = community_export(config)
    tune = of_community(_from_export(config, tune), export)
    if config.source is not None:
        own = tune.source
        tune.source = config.source
        adopt(tune)
        tune.source = own
    if config.stages is not None:
        look_at_files(tune)
    tune = _settled(config, tune)
    tuned = RunFolder(tune.run.dir)
    before = tuple(run for run in _makers(config) if run.path in _earlier(config, verb))
    return chain.Stage(
        verb, tune, Train(tune, tuning), tune.world_size, ", ".join(tune.files), tune.run.dir, tuned.latest,
        finished=lambda: chain.done_since(tuned, *before) and bool(record.resumable(tuned, tune, None)),
        sources=before,
    )  # fmt: skip


def _settled(config: PipelineConfig, stage: Any) -> Any:
    """A stage that trains, with the micro-batch that fits; a dry run shows what does not fit."""
    stage.dry_run = config.dry_run
    settle(stage, print)
    stage.dry_run = False
    return stage


def _from_export(config: PipelineConfig, tune: FinetuneConfig) -> FinetuneConfig:
    """The files of the community where its export is a stage and no others are named."""
    default = SftConfig().files if tune.stage == "sft" else DpoConfig().files
    if "community" not in config.verbs or tune.files != default:
        return tune
    if tune.stage == "sft":
        return replace(tune, sft=replace(tune.sft, files=[WORD]))
    return replace(tune, dpo=replace(tune.dpo, files=[WORD]))


def _earlier(config: PipelineConfig, verb: str) -> list[Path]:
    verbs = config.verbs[: config.verbs.index(verb)]
    return [RunFolder(config.stage_run(one).dir).path for one in verbs]


def _as_begun(tune: FinetuneConfig) -> FinetuneConfig:
    """Let a chain that was begun with the earlier default go on with it."""
    run = RunFolder(tune.run.dir)
    begun = run_config(run).get("sft") if run.config.exists() else None
    asked, default = tune.sft.valid_fraction, SftConfig().valid_fraction
    if begun and begun.get("valid_fraction") == HELD_OUT_BEFORE and asked == default:
        return replace(tune, sft=replace(tune.sft, valid_fraction=HELD_OUT_BEFORE))
    return tune


def _export(config: PipelineConfig) -> list[chain.Stage]:
    export = config.exporting()
    exported, model = RunFolder(export.run.dir), Path(export.run.dir) / "model"
    return [
        chain.Stage(
            "export", export, Export(export), 1, export.source, str(model), model / "config.json",
            finished=lambda: model.exists() and chain.done_since(exported, *_makers(config)), resumes=False,
        )
    ]  # fmt: skip


def _eval(config: PipelineConfig) -> list[chain.Stage]:
    measure = extras.measurable(config.measuring())
    measured = RunFolder(measure.run.dir)
    read = Path(measure.source) / "model" if "export" in config.verbs else Path(measure.source)
    return [
        chain.Stage(
            "eval", measure, Eval(measure), 1, str(read), measure.run.dir, measured.run_json,
            finished=lambda: not _here(config) and chain.done_since(measured, *_makers(config)),
            resumes=False,
        )
    ]  # fmt: skip


def _compare(config: PipelineConfig) -> list[chain.Stage]:
    compare = config.comparing()
    tune = of_community(_from_export(config, config.preferring()), community_export(config))
    compare = replace(compare, dpo=tune.dpo, held_out=held_out_pairs(tune.dpo.files))
    run = RunFolder(compare.run.dir)
    return [
        chain.Stage(
            "compare", compare, Compare(compare), 1, " and ".join(compare.source), compare.run.dir,
            run.path / "comparison.json", resumes=False,
            finished=lambda: chain.done_since(run, *_makers(config)),
        )
    ]  # fmt: skip


def _serve(config: PipelineConfig) -> list[chain.Stage]:
    serve = config.serving()
    made = {RunFolder(config.stage_run(verb).dir).path for verb in config.verbs if verb != "community"}
    sources = {
        source: RunFolder(source).path if RunFolder(source).path in made else locate(source)
        for source in serve.sources
    }
    return serving.stages(serve, sources)


STAGES: dict[str, Callable[[PipelineConfig], list[chain.Stage]]] = {
    "preprocess": _preprocess,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "dpo": _dpo,
    "export": _export,
    "eval": _eval,
    "compare": _compare,
    "serve": _serve,
}
