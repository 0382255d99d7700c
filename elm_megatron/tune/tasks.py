"""The tasks of tuning by `stage`, for `engine/job.py`. Torch-free until a rank calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conf.schema.tune import FinetuneConfig

if TYPE_CHECKING:
    from elm_megatron.engine.task import Task


def tuning(config: FinetuneConfig) -> type[Task]:
    """The class of the task that `config.stage` names; loads torch."""
    from elm_megatron.tune.dpo import Dpo
    from elm_megatron.tune.sft import Sft

    return {"sft": Sft, "dpo": Dpo}[config.stage]
