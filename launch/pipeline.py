"""The whole chain: python launch/pipeline.py [experiment=quickstart corpus.path=DIR cluster=…]

preprocess → pretrain → finetune → export → one generated sentence. A stage whose output is there is skipped.
"""

from pathlib import Path

from data_prep.job import Preprocess
from elm_megatron.compose import main
from elm_megatron.dataset import open_dataset
from elm_megatron.engine.job import Pretrain
from elm_megatron.hf.job import Export
from elm_megatron.pipeline import PipelineConfig
from elm_megatron.run_folder import RunFolder
from elm_megatron.tune.job import Finetune
from slurm import chain, chain_report


def stages(config: PipelineConfig) -> list[chain.Stage]:
    """The links of the chain, each with what it reads and writes."""
    build, train = config.preprocessing(), config.pretraining()
    tune, export = config.tuning(), config.exporting()
    trained, tuned, exported = (RunFolder(part.run.dir) for part in (train, tune, export))
    manifest, model = Path(config.data.dir) / "manifest.json", Path(export.run.dir) / "model"

    def dataset() -> str:
        sizes = config.model.vocab_size, config.train.seq_length
        return open_dataset(config.data.dir, config.corpus, *sizes).sha256

    return [
        chain.Stage(
            "preprocess", build, 1, lambda: (Preprocess(build.job_config()), None),
            config.corpus.path, config.data.dir, manifest, resumes=False,
        ),
        chain.Stage(
            "pretrain", train, train.world_size, lambda: (Pretrain(train), dataset()),
            config.data.dir, train.run.dir, trained.latest,
        ),
        chain.Stage(
            "finetune", tune, tune.world_size, lambda: (Finetune(tune), None),
            ", ".join(config.sft.files), tune.run.dir, tuned.latest,
            finished=lambda: chain.done_since(tuned, trained),
        ),
        chain.Stage(
            "export", export, 1, lambda: (Export(export), None),
            tune.run.dir, str(model), model / "config.json",
            finished=lambda: model.exists() and chain.done_since(exported, trained, tuned), resumes=False,
        ),
    ]  # fmt: skip


@main("pipeline", PipelineConfig)
def launch(config: PipelineConfig) -> int:
    """Run what is missing, then show what came out."""
    status, rows = chain.run_here(stages(config))
    return status or chain_report.show(config, rows)


if __name__ == "__main__":
    launch()
