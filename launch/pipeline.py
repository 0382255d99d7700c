"""The whole chain: preprocess → pretrain → finetune → export → one generated sentence; or other stages.

    python launch/pipeline.py experiment=quickstart
    python launch/pipeline.py model=small cluster=snellius corpus.path=/path/to/texts
    python launch/pipeline.py "stages=[community,finetune,dpo,compare,serve]" source=dpo-large-eur model=large

A stage whose output is there is skipped. On Slurm the stages are queued at once, each behind the one before.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.pipeline import PipelineConfig
from slurm.chains import chain, chain_report
from slurm.chains.stages import community_export, stages
from slurm.chains.sweep import Sweep
from slurm.jobs import extras
from slurm.jobs.dry_run import show

sweep = Sweep()


@main("pipeline", PipelineConfig, sweep.begin)
def launch(config: PipelineConfig) -> int:
    """Run what is missing, then show what came out; on Slurm, queue it and show the queue."""
    if (export := community_export(config)) is not None and not config.dry_run:
        extras.check("community", config)
        from elm_megatron.community.command import export_once

        export_once(export)
    links = stages(config)
    if config.dry_run:
        if config.cluster.executor == "slurm":
            chain.check_scripts(links)
        shown = chain_report.show_plan(links)
        trained = [link.config for link in links if link.verb == "pretrain"]
        return show(trained[0]) if trained else shown
    if config.cluster.executor == "slurm":
        return chain_report.show_queue(chain.queue(links, sweep))
    status, rows = chain.run_here(links)
    return status or chain_report.show(config, rows)


if __name__ == "__main__":
    launch()
