"""Tuning as a job: a small picklable object, torch-free until a rank calls it."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.tune import FinetuneConfig
from elm_megatron.run.world import Outcome, World


@dataclass(frozen=True)
class Finetune:
    """Tunes an adapter as one rank of a world, by `config.stage`."""

    config: FinetuneConfig

    def __call__(self, world: World) -> Outcome:
        """Join the world, tune, leave.

        Raises:
            BadNumbers: loss or gradient is not finite.
            InputError: data, base or an earlier checkpoint do not fit.
        """
        from elm_megatron.model import device as devices

        device = devices.prepare(self.config.cluster.device, world.local_rank)
        from elm_megatron.engine import distributed
        from elm_megatron.tune.dpo import DpoTuner
        from elm_megatron.tune.tuner import Tuner

        distributed.join(world, device, self.config.parallel)
        distributed.seed_everything(self.config.tune.seed)
        try:
            tuner = {"sft": Tuner, "dpo": DpoTuner}[self.config.stage]
            return tuner(self.config, world, device).fit()
        finally:
            distributed.leave()
