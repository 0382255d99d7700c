"""Know the cost before: every layout of a pretraining run that fits, with its time, cost and footprint.

python launch/plan.py model=large cluster=snellius
python launch/plan.py model=large cluster=snellius nodes=[1,2,4] budget=3000 hours=12
python launch/plan.py model=large cluster=snellius calibrate=pretrain-large-eur
python launch/plan.py compare=pretrain-large-eur
python launch/plan.py compare=all

Needs no GPU and submits nothing. plan.json, plan.md and plan.png are written into the run folder.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.plan import PlanConfig
from elm_megatron.planner.command import plan_command
from elm_megatron.planner.measured import compared_runs
from slurm.jobs.ear import read_back
from slurm.jobs.price import per_hour


@main("plan", PlanConfig)
def launch(config: PlanConfig) -> int:
    """Print the plan, or a run's figures beside the predicted ones."""
    if config.compare:
        for folder in compared_runs(config.compare):
            read_back(folder)
    return plan_command(config, lambda run: per_hour(run.cluster, run.world_size))


if __name__ == "__main__":
    launch()
