"""What may change when a command is repeated with the same run.name, and what may not.

Torch-free, so that a launcher refuses before anything starts.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from conf import typed
from conf.deciding import CARRIED_OUT, EVERY, LOOPS
from conf.errors import InputError
from conf.removed import without_removed
from conf.schema.train import TrainConfig
from conf.schema.tune import TuneConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import leftovers, step_name

# Keys that do not change what is learnt. Everything else must stay as it was. `corpus.*` tells how a dataset
# was made; which dataset it is, the hash of its manifest says.
FREE_PREFIXES = ("parallel.", "cluster.", "eval.", "run.dir", "run.group", "dry_run", "force", "notify")
FREE_PREFIXES += ("corpus.", "data.dir")
FREE_IN_LOOPS = (*CARRIED_OUT, "micro_batch_size", "distributed_optimizer", "patience")
LOOP_SCHEMAS = {"train": TrainConfig, "tune": TuneConfig}
GROWING_SCHEDULES = ("constant", "wsd")


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: {"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def is_free(key: str) -> bool:
    """Whether a dotted key may change between the attempts of one run."""
    in_loop = next((key.removeprefix(loop) for loop in LOOPS if key.startswith(loop)), None)
    return key.startswith(FREE_PREFIXES) or in_loop in FREE_IN_LOOPS or key.endswith(EVERY)


def check_resume(old: dict[str, Any], new: dict[str, Any], run_dir: str, moved: Collection[str] = ()) -> None:
    """Refuse to go on with a run under a configuration that is not the same run.

    Args:
        old: the run folder's config.yaml, nested.
        new: the configuration asked for now, nested.
        run_dir: named in the refusal.
        moved: keys whose paths differ and whose content is the same.

    Raises:
        InputError: naming the first key that differs and may not.
    """
    before, after = flatten(without_removed(old)), flatten(new)
    for key in sorted(before.keys() | after.keys()):
        was, wants = before.get(key), after.get(key)
        if was == wants or is_free(key) or key in moved:
            continue
        if key not in before and (not wants or wants == _default(key)):
            continue  # an option younger than the run, and not in use
        loop = key.removesuffix("steps")
        if loop in LOOPS and key.endswith(".steps") and None not in (was, wants) and wants > was:
            if after.get(f"{loop}schedule") in GROWING_SCHEDULES:
                continue
            raise InputError(
                f"{key}={wants}: {run_dir} was started with {was}, and steps may grow only with "
                f"{loop}schedule {' or '.join(GROWING_SCHEDULES)}; give another run.name."
            )
        raise InputError(
            f"{key}={wants}: {run_dir} was started with {key}={was}, which may not change on resume; "
            "repeat the first value or give another run.name."
        )


def _default(key: str) -> Any:
    """The default of a key of a loop; None for other keys."""
    group, _, name = key.partition(".")
    return typed.defaults(LOOP_SCHEMAS[group]).get(name) if group in LOOP_SCHEMAS else None


def require_known_steps(run: RunFolder) -> None:
    """Refuse to start over when a run has no checkpoint now and was saved before.

    Raises:
        InputError: naming the step and what can be given.
    """
    step = saved_step(run)
    if step:
        raise InputError(
            f"{run.path}: was saved at step {step}, and {run.checkpoints} has no complete checkpoint now. "
            f"A run does not start over silently: put a checkpoint back ({step_name(step)}/ with its "
            "manifest.json), or begin under another run.name, from old weights with "
            "train.init_from=<run>[@step]."
        )


def saved_step(run: RunFolder) -> int:
    """The last step a run was saved at, by what is left of it; 0 when no checkpoint was committed."""
    record = run.read()
    if "checkpoint_step" in record:  # written after each commit
        known = record["checkpoint_step"]
    elif record:
        known = record.get("step")  # of a run of an earlier version: written when a save begins
        if known and any(step_name(known) in folder.name for folder in leftovers(run)):
            known = 0  # that save was cut off
    else:
        known = max((row.get("step", 0) for row in run.read_metrics()), default=0)
    return max(known or 0, run.latest_step() or 0)
