"""Export and import as jobs: small picklable objects, torch-free until a rank calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conf.errors import InputError
from conf.schema.hf import ExportConfig, ImportConfig
from conf.schema.parallel import ParallelConfig
from elm_megatron.run.world import Outcome, World


def require_one(world: World, verb: str) -> None:
    """Refuse a world of several ranks.

    Raises:
        InputError: there are several.
    """
    if world.world_size != 1:
        raise InputError(f"{verb} is one process, found a world of {world.world_size} ranks.")


def _in_one_rank(world: World, verb: str, work: Callable[[], Any]) -> Outcome:
    """Do the work with megatron-core's process groups of one CPU rank around it."""
    require_one(world, verb)
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", 0)  # before megatron-core is imported
    from elm_megatron.engine import distributed

    distributed.join(world, device, ParallelConfig())
    try:
        distributed.seed_everything(0)
        work()
    finally:
        distributed.leave()
    return "done"


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

        def work() -> None:
            from elm_megatron.hf.export import export

            export(self.config)

        return _in_one_rank(world, "export", work)


@dataclass(frozen=True)
class Import:
    """Imports what `config` names, as the only rank of its world."""

    config: ImportConfig

    def __call__(self, world: World) -> Outcome:
        """Write the run's checkpoint and check it.

        Raises:
            InputError: the source cannot be imported.
            GateError: Megatron computes something else with it.
        """

        def work() -> None:
            from elm_megatron.hf.import_hf import import_hf

            import_hf(self.config)

        return _in_one_rank(world, "import_hf", work)
