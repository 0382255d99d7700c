"""Pretraining as a job: a small picklable object, torch-free until a rank calls it."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.pretrain import PretrainConfig
from elm_megatron.run.world import Outcome, World


@dataclass(frozen=True)
class Pretrain:
    """Trains `config` as one rank of a world."""

    config: PretrainConfig

    def __call__(self, world: World) -> Outcome:
        """Join the world, train, leave.

        Raises:
            BadNumbers: loss or gradient is not finite.
        """
        from elm_megatron.model import device as devices

        device = devices.prepare(self.config.cluster.device, world.local_rank)

        from elm_megatron.engine import distributed
        from elm_megatron.engine.train import Trainer

        distributed.join(world, device, self.config.parallel)
        distributed.seed_everything(self.config.train.seed)
        outcome = Trainer(self.config, world, device).fit()
        distributed.leave()
        return outcome
