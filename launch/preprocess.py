"""Make a dataset out of raw works: clean, deduplicate, redact, train the tokenizer, write Megatron's files.

    python launch/preprocess.py corpus=eur
    python launch/preprocess.py corpus.path=/path/to/texts preprocess.ranks=4
    python launch/preprocess.py corpus=eur remove=thesis:oai:thesis.eur.nl:57233
    python launch/preprocess.py corpus=eur notice=https://thesis.eur.nl/pub/57233
    python launch/preprocess.py corpus=eur corpus.opt_out=objections.xlsx

The same command again continues an interrupted build, and does nothing when the dataset is complete.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.preprocess import PreprocessCommand
from data_prep.job import Preprocess, publish
from elm_megatron.card import notice
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import show_plain

sweep = Sweep()


@main("preprocess", PreprocessCommand, sweep.begin)
def launch(config: PreprocessCommand) -> int:
    """Hand the build over: one task that starts MPI itself here, one task per rank on Slurm."""
    ranks = 1 if config.cluster.executor == "local" else config.preprocess.ranks
    if config.dry_run:
        return show_plain(config, ranks, "preprocess", f"{config.corpus.path} → {config.data.dir}")
    if config.notice is not None:
        return notice.command(config.building())
    job = Preprocess(config.building(), notice.follow_up)
    if config.cluster.executor == "slurm" and job.finished():
        publish(config.building().data_dir(), config)
        print(f"{config.data.dir} is finished and up to date: nothing to do.")
        return 0
    return sweep.submit(job, config, ranks, "preprocess", resumes=False)


if __name__ == "__main__":
    launch()
