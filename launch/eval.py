"""Measure models: python launch/eval.py source=<run or folder> | "source=[<run>,<export>]"

Perplexity and bits per byte by language and source, and the tasks of elm_megatron/hf/tasks/, in one table.
"""

from elm_megatron.compose import main
from elm_megatron.hf.config import EvalConfig
from elm_megatron.hf.job import Eval
from elm_megatron.hf.source import side_by_side
from slurm.submit import submit


@main("eval", EvalConfig)
def launch(config: EvalConfig) -> int:
    """Check that the models are there, then hand the job over."""
    side_by_side(config.sources)
    if config.dry_run:
        from slurm.dry_run import show_plain

        return show_plain(config, 1, "eval", f"{', '.join(config.sources)} → {config.run.dir}")
    return submit(Eval(config), config, 1, "eval", resumes=False)


if __name__ == "__main__":
    launch()
