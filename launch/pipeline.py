"""The whole chain: preprocess → pretrain → finetune → export → one generated sentence.

    python launch/pipeline.py experiment=quickstart
    python launch/pipeline.py model=small cluster=snellius corpus.path=/path/to/texts

A stage whose output is there is skipped. On Slurm the stages are queued at once, each behind the one before.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.pipeline import PipelineConfig
from slurm.chains import chain, chain_report
from slurm.chains.stages import stages
from slurm.chains.sweep import Sweep
from slurm.jobs.dry_run import show

sweep = Sweep()


@main("pipeline", PipelineConfig, sweep.begin)
def launch(config: PipelineConfig) -> int:
    """Run what is missing, then show what came out; on Slurm, queue it and show the queue."""
    links = stages(config)
    if config.dry_run:
        if config.cluster.executor == "slurm":
            chain.check_scripts(links)
        return chain_report.show_plan(links) or show(links[1].config)
    if config.cluster.executor == "slurm":
        return chain_report.show_queue(chain.queue(links, sweep))
    status, rows = chain.run_here(links)
    return status or chain_report.show(config, rows)


if __name__ == "__main__":
    launch()
