"""Which keys decide on what is learnt or measured, and which only on how a run is carried out.

Two rules come from here: what the name of a sweep's point holds (conf/points.py), and what may change when a
run goes on (elm_megatron/run/resume.py).
"""

from __future__ import annotations

# Of `train.*` and `tune.*`: what is kept, logged and guarded, but neither learnt nor measured.
CARRIED_OUT = (
    "keep_last",
    "keep_best",
    "spike_factor",
    "log_sample_ids",
    "stall_seconds",
    "wandb",
    "profile",
    "profile.steps",
)
LOOPS = ("train.", "tune.")
EVERY = "_every"  # how often something happens
# Of `cluster.*`: all else says where, when and in whose name a job runs.
MEASURED = ("nodes", "tasks_per_node", "gpus_per_node", "gpu_type", "cpus_per_task", "device", "exclusive")
NEVER = ("run.name", "run.dir", "run.group", "dry_run", "force", "bundle", "eval.every_checkpoint")
NEVER += ("eval.device", "eval.time")
PUBLISHED = ("institution",)  # group of what is said of a model in its published documents


def decides(key: str) -> bool:
    """Whether a dotted key changes what a run learns, or what a comparison of runs measures."""
    group, _, name = key.partition(".")
    if group == "cluster":
        return name in MEASURED
    if key.startswith(LOOPS) and (name in CARRIED_OUT or name.endswith(EVERY)):
        return False
    return key not in (*NEVER, "notify") and group not in PUBLISHED
