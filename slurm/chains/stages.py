"""The stages of `launch/pipeline.py`: preprocess → pretrain → finetune → export, and eval on a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conf.schema.pipeline import PipelineConfig
from conf.schema.tune import FinetuneConfig, SftConfig
from data_prep.dataset import open_dataset
from data_prep.job import Preprocess
from elm_megatron.card import notice
from elm_megatron.engine.job import Train
from elm_megatron.evaluate.job import Eval
from elm_megatron.hf.job import Export
from elm_megatron.planner.layout import settle
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config
from elm_megatron.tune.tasks import tuning
from slurm.chains import chain
from slurm.jobs import extras, record

HELD_OUT_BEFORE = (
    0.05  # of the chat data, in chains made before finetune.py's default was that of a chain too
)


def _as_begun(tune: FinetuneConfig) -> FinetuneConfig:
    """Let a chain that was begun with the earlier default go on with it."""
    run = RunFolder(tune.run.dir)
    begun = run_config(run).get("sft") if run.config.exists() else None
    asked, default = tune.sft.valid_fraction, SftConfig().valid_fraction
    if begun and begun.get("valid_fraction") == HELD_OUT_BEFORE and asked == default:
        return replace(tune, sft=replace(tune.sft, valid_fraction=HELD_OUT_BEFORE))
    return tune


def stages(config: PipelineConfig) -> list[chain.Stage]:
    """The links of the chain, each with what it reads and writes."""
    build, train = config.preprocessing(), config.pretraining()
    tune, export = _as_begun(config.tuning()), config.exporting()
    for stage in (train, tune):
        stage.dry_run = config.dry_run  # a dry run shows what does not fit
        settle(stage, print)
        stage.dry_run = False
    trained, tuned, exported = (RunFolder(part.run.dir) for part in (train, tune, export))
    manifest, model = Path(config.data.dir) / "manifest.json", Path(export.run.dir) / "model"

    def dataset() -> str:
        sizes = config.model.vocab_size, config.train.seq_length
        return open_dataset(config.data.dir, config.corpus, *sizes).sha256

    making = Preprocess(build.building(), notice.follow_up)
    here = config.cluster.executor != "slurm"
    links = [
        chain.Stage(
            "preprocess", build, making, 1 if here else config.preprocess.ranks,
            config.corpus.path, config.data.dir, manifest, resumes=False,
            finished=lambda: not here and making.finished(),
        ),
        chain.Stage(
            "pretrain", train, Train(train), train.world_size,
            config.data.dir, train.run.dir, trained.latest, manifest=dataset,
            finished=lambda: not here and bool(record.resumable(trained, train, dataset())),
        ),
        chain.Stage(
            "finetune", tune, Train(tune, tuning), tune.world_size,
            ", ".join(config.sft.files), tune.run.dir, tuned.latest,
            finished=lambda: chain.done_since(tuned, trained) and bool(record.resumable(tuned, tune, None)),
            sources=(trained,),
        ),
        chain.Stage(
            "export", export, Export(export), 1, tune.run.dir, str(model), model / "config.json",
            finished=lambda: model.exists() and chain.done_since(exported, trained, tuned), resumes=False,
        ),
    ]  # fmt: skip
    if not here:
        measure = extras.measurable(config.measuring())
        measured = RunFolder(measure.run.dir)
        links.append(
            chain.Stage(
                "eval",
                measure,
                Eval(measure),
                1,
                str(model),
                measure.run.dir,
                measured.run_json,
                finished=lambda: chain.done_since(measured, trained, tuned),
                resumes=False,
            )
        )
    return links
