"""The whole chain: python launch/pipeline.py [experiment=quickstart corpus.path=DIR cluster=…]

preprocess → pretrain → finetune → export → one generated sentence. A stage whose output is there is skipped.
"""

from conf.compose import main
from conf.schema.pipeline import PipelineConfig
from slurm.chains import chain, chain_report
from slurm.chains.points import begin
from slurm.chains.stages import stages


@main("pipeline", PipelineConfig, begin)
def launch(config: PipelineConfig) -> int:
    """Run what is missing, then show what came out; on Slurm, queue it and show the queue."""
    links = stages(config)
    if config.dry_run:
        from slurm.jobs.dry_run import show

        if config.cluster.executor == "slurm":
            chain.check_scripts(links)
        return chain_report.show_plan(links) or show(config.pretraining())
    if config.cluster.executor == "slurm":
        return chain_report.show_queue(chain.queue(links))
    status, rows = chain.run_here(links)
    return status or chain_report.show(config, rows)


if __name__ == "__main__":
    launch()
