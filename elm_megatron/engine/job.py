"""Training as a job: a small picklable object, torch-free until a rank calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import Outcome, World

if TYPE_CHECKING:
    from elm_megatron.engine.task import Task


def pretraining(config: Any) -> type[Task]:
    """The class of the task `pretrain`; loads torch."""
    from elm_megatron.engine.pretraining import Pretraining

    return Pretraining


@dataclass(frozen=True)
class Train:
    """Trains as one rank of a world.

    Attributes:
        config: of the verb; has the groups `cluster`, `parallel`, and the one that governs the loop.
        task: gives the class of what is learnt, in the rank; `tune/tasks.py` has those of tuning.
    """

    config: Any
    task: Callable[[Any], type[Task]] = pretraining

    def __call__(self, world: World) -> Outcome:
        """Join the world, train, leave.

        The process groups are left on success only. After an exception the other ranks may wait in a
        collective, and with NCCL leaving would wait for them: the rank just ends, and the launcher ends the
        others.

        Raises:
            BadNumbers: loss or gradient is not finite.
            InputError: data, base or an earlier checkpoint do not fit.
        """
        from elm_megatron.model import device as devices

        device = devices.prepare(self.config.cluster.device, world.local_rank)

        from elm_megatron.engine import distributed
        from elm_megatron.engine.train import Trainer

        kind = self.task(self.config)
        logs = RunFolder(self.config.run.dir).logs
        distributed.join(world, device, self.config.parallel, dumps=logs)
        distributed.seed_everything(getattr(self.config, kind.group).seed)
        outcome = Trainer(kind(self.config, world, device)).fit()
        distributed.leave()
        return outcome
