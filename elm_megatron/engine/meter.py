"""What one update cost: speed, MFU, memory, and who kept the others waiting."""

from __future__ import annotations

from typing import Any

import torch

from conf.schema.model import ModelConfig
from conf.schema.train import TrainConfig
from elm_megatron.engine import distributed
from elm_megatron.engine.energy import EnergyMeter
from elm_megatron.model import device as devices
from elm_megatron.run.world import World


class Meter:
    """One rank's measures.

    Args:
        model: whose FLOPs are counted.
        train: sequence length and precision.
        world: this rank's place.
        device: its device; a CPU's peak is measured here and now.
        energy: what it uses.
    """

    def __init__(
        self,
        model: ModelConfig,
        train: TrainConfig,
        world: World,
        device: torch.device,
        energy: EnergyMeter,
    ):
        self._device, self._energy = device, energy
        self._flops_per_token = model.flops_per_token(train.seq_length)
        peak = devices.peak_flops(device, train.precision)
        self._peak = peak and peak * world.world_size

    def step(self, tokens: int, seconds: float, busy_seconds: float, logged: bool) -> dict[str, Any]:
        """The columns of a row of metrics.jsonl that tell of cost; every rank calls it.

        Args:
            tokens: of the update, over the whole job.
            seconds: from its start to its end.
            busy_seconds: until this rank began to wait for the gradients of the others.
            logged: whether the ranks exchange memory and times; otherwise these columns hold nothing.
        """
        memory = distributed.largest(devices.peak_memory_bytes(self._device), self._device) if logged else 0
        slowest, by = distributed.slowest(busy_seconds, self._device) if logged else (0, 1.0)
        kwh = distributed.total(self._energy.kwh(), self._device) if logged else None
        flops = self._flops_per_token * tokens / seconds  # the model's, of the whole job
        return {
            "tokens_per_second": tokens / seconds,
            "flops_per_second": flops,
            "mfu": flops / self._peak if self._peak else None,
            "step_seconds": seconds,
            "memory_bytes": int(memory),
            "slowest_rank": slowest,
            "slowest_over_median": by,
            "kwh": kwh,  # of this attempt so far
        }
