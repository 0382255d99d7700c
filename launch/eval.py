"""Measure models: python launch/eval.py source=<run or folder> | "source=[<run>,<export>]"

Perplexity and bits per byte by language and source, and the tasks of elm_megatron/evaluate/tasks/,
in one table.
"""

from conf.compose import main
from conf.schema.hf import EvalConfig
from elm_megatron.evaluate.job import Eval
from elm_megatron.sources.source import side_by_side
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import show_plain

sweep = Sweep()


@main("eval", EvalConfig, sweep.begin)
def launch(config: EvalConfig) -> int:
    """Check that the models are there, then hand the job over."""
    side_by_side(config.sources)
    if config.dry_run:
        return show_plain(config, 1, "eval", f"{', '.join(config.sources)} → {config.run.dir}")
    return sweep.submit(Eval(config), config, 1, "eval", resumes=False)


if __name__ == "__main__":
    launch()
