"""Serve models behind one OpenAI-compatible address: chat completions, completions, streaming, models.

    python launch/serve.py source=export-finetune-tiny-sample
    python launch/serve.py source=dpo-large-eur cluster=snellius idle_minutes=30
    python launch/serve.py "source=[finetune-large-eur,dpo-large-eur]"

llama.cpp serves on CPUs, vLLM on GPUs; what they read is exported first. The key is in <run>/serve.key.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.plain import plain
from conf.schema.serve import ServeConfig
from elm_megatron.serve.status import PORT, command_of
from elm_megatron.sources import ownership
from slurm.chains import chain, chain_report
from slurm.chains.serving import ENGINES, stages
from slurm.chains.sweep import Sweep
from slurm.jobs import extras
from slurm.jobs.dry_run import show_plain

sweep = Sweep()


@main("serve", ServeConfig, sweep.begin)
def launch(config: ServeConfig) -> int:
    """Export what is missing, then serve here or in the queue."""
    ownership.claim(config.run, "serve", plain(config))
    links = stages(config)
    extras.check("serve", config)
    print(f"engine: {ENGINES[config.engine]} (cluster={config.cluster.name})")
    if config.dry_run:
        what = ", ".join(config.sources)
        return chain_report.show_plan(links) or show_plain(config, 1, "serve", f"{what} → {config.run.dir}")
    if config.cluster.executor != "slurm":
        return chain.run_here(links)[0]
    status = chain_report.show_queue(chain.queue(links, sweep))
    run = links[-1].run.path
    print(f"when it runs, here:        {command_of(run)}    → http://127.0.0.1:{PORT}/v1")
    print(f"beside it, at your desk:   ssh -N -L {PORT}:127.0.0.1:{PORT} {chain_report.this_host()}")
    return status


if __name__ == "__main__":
    launch()
