"""Export, import and evaluation as jobs: small picklable objects, torch-free until a rank calls them."""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.errors import InputError
from elm_megatron.hf.config import ExportConfig
from elm_megatron.world import Outcome, World


def _require_alone(world: World, verb: str) -> None:
    if world.world_size != 1:
        raise InputError(f"{verb} is one process, found a world of {world.world_size} ranks.")


@dataclass(frozen=True)
class Export:
    """Exports what `config` names, as the only rank of its world."""

    config: ExportConfig

    def __call__(self, world: World) -> Outcome:
        """Write the model and check it.

        Raises:
            InputError: the source cannot be exported.
            GateError: the written file computes something else.
        """
        _require_alone(world, "export")
        from elm_megatron.model import device as devices

        device = devices.prepare("cpu", 0)  # before megatron-core is imported

        from elm_megatron.config import ParallelConfig
        from elm_megatron.engine import distributed
        from elm_megatron.hf.export import export

        distributed.join(world, device, ParallelConfig())
        try:
            distributed.seed_everything(0)
            export(self.config)
        finally:
            distributed.leave()
        return "done"
