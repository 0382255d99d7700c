"""Forming the world: rendezvous through the run folder, process groups, and their end.

Rank 0 opens a TCP store on a port the kernel gives it and publishes its addresses in a file named after the
job and its restart, so that two jobs on one node, or two attempts of one job, can never meet.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from conf.schema.parallel import ParallelConfig
from elm_megatron.model import device as devices
from elm_megatron.run import meeting
from elm_megatron.run.world import World

RENDEZVOUS_SECONDS = 600
TIMEOUT_SECONDS = 600.0  # of a collective


def rendezvous_file(world: World) -> Path:
    """Where rank 0 of this attempt of this job publishes its address."""
    return world.rendezvous / f"rendezvous-{world.job_id}-{world.restart}"


def _store(world: World, timeout: timedelta) -> dist.TCPStore:
    path = rendezvous_file(world)
    if world.rank == 0:
        store = dist.TCPStore("0.0.0.0", 0, world.world_size, True, timeout, wait_for_workers=False)
        meeting.publish(path, [world.hostname, *world.addresses], store.port)
        return store
    host, port = meeting.reach(path, wait=timeout.total_seconds())
    return dist.TCPStore(host, port, world.world_size, False, timeout, wait_for_workers=False)


def join(
    world: World,
    device: torch.device,
    parallel: ParallelConfig,
    timeout_seconds: float = TIMEOUT_SECONDS,
    dumps: Path | None = None,
) -> None:
    """Join the world and make megatron-core's process groups for the layout.

    Args:
        timeout_seconds: of every collective, in all groups.
        dumps: folder for what each rank was waiting for when a collective ran into the timeout, written by
            NCCL's flight recorder; None is none.
    """
    if dumps is not None:
        record_collectives(dumps, world)
    store = _store(world, timedelta(seconds=RENDEZVOUS_SECONDS))
    dist.init_process_group(
        devices.backend(device),
        store=store,
        rank=world.rank,
        world_size=world.world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )
    model_parallel(parallel, timeout_seconds)


def record_collectives(folder: Path, world: World) -> None:
    """Let NCCL's watchdog write the last collectives of each rank to `folder` when one of them hangs.

    Read them with `torch.distributed.flight_recorder.fr_trace`. A variable that the user has set stays.
    """
    prefix = folder / f"nccl-{world.job_id}-{world.restart}-rank-"
    wanted = {
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",  # entries; torch 2.9 and later read TORCH_FR_BUFFER_SIZE
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": str(prefix),
        "TORCH_FR_DUMP_TEMP_FILE": str(prefix),
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def model_parallel(parallel: ParallelConfig, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """megatron-core's groups over torch's initialised default group."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tp,
        pipeline_model_parallel_size=parallel.pp,
        virtual_pipeline_model_parallel_size=parallel.vpp if parallel.vpp > 1 else None,
        context_parallel_size=parallel.cp,
        create_gloo_process_groups=False,
        distributed_timeout_minutes=timeout_seconds / 60,  # its own default is half an hour
    )


def seed_everything(seed: int) -> None:
    """Seed torch's and megatron-core's generators of this rank."""
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


def leave() -> None:
    """Destroy the groups; safe to call when they were never made."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def slowest(seconds: float, device: torch.device) -> tuple[int, float]:
    """(rank that took longest, how many times the median it took) for a time each rank measured."""
    mine = torch.tensor([seconds], dtype=torch.float64, device=device)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    times = torch.cat(every)
    rank = int(times.argmax())
    return rank, (times[rank] / times.median()).item()


def largest(value: float, device: torch.device) -> float:
    """The largest of a number over all ranks."""
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.item()


def gathered(thing: Any) -> list[Any]:
    """What every rank gave, by rank; small things that can be pickled."""
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, thing)
    return every


def of_first(thing: Any, device: torch.device) -> Any:
    """What rank 0 gave, on every rank; for what a rank reads from files that may change meanwhile."""
    shared = [thing]
    dist.broadcast_object_list(shared, src=0, device=device)
    return shared[0]


def total(value: float | None, device: torch.device) -> float | None:
    """The sum of a number over all ranks, leaving out those that have none; None when nobody has one."""
    tensor = torch.tensor([value or 0.0, float(value is not None)], dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    amount, known = tensor.tolist()
    return amount if known else None
