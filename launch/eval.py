"""Measure models: perplexity and bits per byte by language and source, and the scores of tasks, in one table.

python launch/eval.py source=export-pretrain-tiny-sample
python launch/eval.py "source=[export-a,export-b]" tasks=[]
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.plain import plain
from conf.schema.hf import EvalConfig
from elm_megatron.evaluate.job import Eval
from elm_megatron.sources import ownership
from elm_megatron.sources.source import side_by_side
from slurm.chains.sweep import Sweep
from slurm.jobs import extras
from slurm.jobs.dry_run import show_plain

sweep = Sweep()


@main("eval", EvalConfig, sweep.begin)
def launch(config: EvalConfig) -> int:
    """Check that the models are there, then hand the job over."""
    side_by_side(config.sources)
    config = extras.measurable(config)
    extras.check("eval", config)
    ownership.claim(config.run, "eval", plain(config))
    if config.dry_run:
        return show_plain(config, 1, "eval", f"{', '.join(config.sources)} → {config.run.dir}")
    return sweep.submit(Eval(config), config, 1, "eval", resumes=False)


if __name__ == "__main__":
    launch()
