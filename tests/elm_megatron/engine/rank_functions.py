"""What the rank processes run: module-level functions, so that they can be sent to them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from typing import Any

from conf.schema.pretrain import PretrainConfig
from elm_megatron.engine.job import Train
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World


def train(world: World, config: PretrainConfig) -> str:
    """Train to the end."""
    return Train(config)(world)


def train_aloud(world: World, config: PretrainConfig) -> str:
    """Train to the end; returns what it wrote to stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        Train(config)(world)
    return said.getvalue()


def train_refused(world: World, config: PretrainConfig) -> str:
    """Train; returns the refusal's text."""
    from conf.errors import InputError
    from elm_megatron.engine import distributed

    try:
        return Train(config)(world)
    except InputError as e:
        return str(e)
    finally:
        distributed.leave()


def train_with_wrong_kernel(world: World, config: PretrainConfig) -> str:
    """Train with a cross entropy whose gradients are divided by the rows; returns the refusal's text."""
    import torch

    from elm_megatron.model import cross_entropy

    original = cross_entropy.linear_cross_entropy

    def wrong(hidden: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        losses = original(hidden, *arguments, **options)
        share = losses / len(hidden)
        return share + (losses - share).detach()  # the value is right

    cross_entropy.linear_cross_entropy = wrong
    try:
        return train_refused(world, config)
    finally:
        cross_entropy.linear_cross_entropy = original


def train_with_a_straggler(world: World, config: PretrainConfig, slow: int) -> str:
    """Train; one rank is slow in its forward passes."""
    import time

    from elm_megatron.engine.pretraining import Pretraining

    original = Pretraining.forward_step

    def forward_step(self: Pretraining, *arguments: Any) -> Any:
        if world.rank == slow:
            time.sleep(0.5)
        return original(self, *arguments)

    Pretraining.forward_step = forward_step  # type: ignore[method-assign]
    try:
        return Train(config)(world)
    finally:
        Pretraining.forward_step = original  # type: ignore[method-assign]


def train_with_signal(world: World, config: PretrainConfig, step: int, number: int) -> str:
    """Train; one rank gets a signal in the middle of a step."""
    from elm_megatron.engine.train import Trainer

    original = Trainer.train_step

    def train_step(self: Trainer) -> Any:
        if self.step == step - 1 and self.task.world.rank == world.world_size - 1:
            os.kill(os.getpid(), number)
        return original(self)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        return Train(config)(world)
    finally:
        Trainer.train_step = original  # type: ignore[method-assign]
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(name, signal.SIG_DFL)


def train_with_request(world: World, config: PretrainConfig, step: int, what: str) -> str:
    """Train; before a step somebody asks for something by a file."""
    from elm_megatron.engine.train import Trainer
    from elm_megatron.run import requests

    original, requests.LOOK_SECONDS = Trainer.train_step, 0.0

    def train_step(self: Trainer) -> Any:
        if self.step == step - 1 and self.task.world.rank == 0:
            requests.ask(folder(config).path, what)
        return original(self)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        return Train(config)(world)
    finally:
        Trainer.train_step, requests.LOOK_SECONDS = original, 1.0  # type: ignore[method-assign]
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(name, signal.SIG_DFL)


def train_with_slow_writes(world: World, config: PretrainConfig) -> str:
    """Train; every file of a checkpoint is written only after training has gone on for a while."""
    import time

    from elm_megatron.checkpoint import save as checkpoint

    original = checkpoint.write_file

    def write_file(*arguments: Any) -> Any:
        time.sleep(0.5)
        return original(*arguments)

    checkpoint.write_file = write_file
    try:
        return Train(config)(world)
    finally:
        checkpoint.write_file = original


def train_and_stop_beating(world: World, config: PretrainConfig, silent: int) -> str:
    """Two ranks beat; one falls silent. Returns what the other would have died with."""
    import time

    from elm_megatron.engine.liveness import Heartbeat

    said: list[str] = []
    heart = Heartbeat(world, config.train.stall_seconds)
    heart._give_up = lambda rank, last, seconds: said.append(f"{rank} {last}")  # type: ignore[method-assign]
    heart.step = 7
    # A rank that begins a second after the other would be the silent one.
    (world.rendezvous / f"here-{world.job_id}-{world.rank}").touch()
    until = time.monotonic() + 60
    while not all((world.rendezvous / f"here-{world.job_id}-{n}").exists() for n in range(world.world_size)):
        assert time.monotonic() < until, "the other rank does not come"
        time.sleep(0.01)
    heart.start()
    time.sleep(0.6)
    if world.rank == silent:
        heart._stop.set()
    time.sleep(2.5)
    if world.rank != silent:
        heart.stop()
    return said[0] if said else ""


def train_to_bad_numbers(world: World, config: PretrainConfig, step: int, rank: int) -> str:
    """Train; before `step` a matrix of one rank becomes NaN. Returns the refusal's text."""
    import torch

    from elm_megatron.engine import distributed
    from elm_megatron.engine.guards import BadNumbers
    from elm_megatron.engine.train import Trainer

    original = Trainer.train_step

    def train_step(self: Trainer) -> Any:
        if self.step == step - 1 and self.task.world.rank == rank:
            with torch.no_grad():
                next(self.chunks[0].parameters()).fill_(float("nan"))
        return original(self)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        return Train(config)(world)
    except BadNumbers as e:
        return str(e)
    finally:
        Trainer.train_step = original  # type: ignore[method-assign]
        distributed.leave()


def held_bytes(world: World, config: PretrainConfig) -> dict[str, int]:
    """Bytes a really built rank holds for weights, gradients and optimizer after one step, and those that
    autograd saves in the forward pass of one micro-batch, where the model is not cut into stages."""
    import torch
    import torch.distributed as dist

    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", world.local_rank)
    from elm_megatron.engine import data, distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer

    distributed.join(world, device, config.parallel)
    distributed.seed_everything(1)
    trainer = Trainer(Pretraining(config, world, device))
    trainer.train_step()
    weights = [p for chunk in trainer.chunks for p in chunk.parameters()]
    buffers = [b for chunk in trainer.chunks for b in chunk.buffers]
    parts = [part for p in weights if (part := trainer.optimizer.owned_part(p))]
    moments = [m for part in parts for m in trainer.optimizer.moments(part).values()]
    masters = [part.main for part in parts] if config.train.precision != "fp32" else []
    saved: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in weights}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    size, dataset = config.train.micro_batch_size, trainer.task.train_set
    if config.parallel.pp == 1:
        (batch,) = data.micro_batches(dataset, data.sample_ids(0, size, len(dataset), 1), size, 0, 1, device)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = trainer.chunks[0](batch.tokens, batch.position_ids, None, labels=batch.labels)
        loss.sum().backward()
    dist.barrier()
    distributed.leave()
    return {
        "parameters": sum(p.numel() for p in weights),
        "weight_bytes": sum(p.numel() * p.element_size() for p in weights),
        "gradient_bytes": sum(b.grad_data.numel() * b.grad_data.element_size() for b in buffers),
        "optimizer_bytes": sum(t.numel() * t.element_size() for t in moments + masters),
        "activation_bytes": sum(saved.values()),
    }


def folder(config: PretrainConfig) -> RunFolder:
    """The run's folder, made as the submitter makes it."""
    run = RunFolder(config.run.dir)
    run.create()
    return run


def update_without_gradients(world: World, config: PretrainConfig) -> dict[bool, set[float]]:
    """One update at a rate of 0.01 whose gradients are zero: by what matrices and vectors are multiplied."""
    import torch

    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", world.local_rank)

    from elm_megatron.engine import distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer

    distributed.join(world, device, config.parallel)
    distributed.seed_everything(1)
    try:
        trainer = Trainer(Pretraining(config, world, device))
        weights = [weight for chunk in trainer.chunks for weight in chunk.parameters()]
        before = [weight.detach().float().norm() for weight in weights]
        for chunk in trainer.chunks:
            chunk.zero_grad_buffer()
        trainer.optimizer.set_learning_rate(0.01)
        trainer.optimizer.update(trainer.optimizer.gradient_norm())
        if trainer.distributed_optimizer:
            for chunk in trainer.chunks:
                chunk.start_param_sync(force_sync=True)
        factors: dict[bool, set[float]] = {True: set(), False: set()}
        for weight, norm in zip(weights, before, strict=True):
            factors[weight.dim() > 1].add(round((weight.detach().float().norm() / norm).item(), 4))
        torch.distributed.barrier()
        return factors
    finally:
        distributed.leave()


def train_with_long_validation(
    world: World, config: PretrainConfig, at: int, number: int
) -> tuple[str, dict[str, float]]:
    """Train; a signal comes one second into the validation of step `at`, of which a micro-batch takes 0.5 s.

    Returns the outcome, and the monotonic times of the signal and of the last commit.
    """
    import threading
    import time

    from elm_megatron.checkpoint.save import CheckpointSaver
    from elm_megatron.engine.passes import Passes
    from elm_megatron.engine.validation import Validator

    run, measure, commit = Passes.run, Validator.measure, CheckpointSaver._commit
    times: dict[str, float] = {}
    now: dict[str, int] = {}

    def slow(self: Passes, dataset: Any, ids: Any, forward_only: bool) -> Any:
        if forward_only and now["step"] == at:
            time.sleep(0.5)
        return run(self, dataset, ids, forward_only)

    def signalled(self: Validator, step: int, *arguments: Any) -> Any:
        def send() -> None:
            times["signal"] = time.monotonic()
            os.kill(os.getpid(), number)

        if step == at and not times and world.rank == world.world_size - 1:
            threading.Timer(1.0, send).start()
        now["step"] = step
        return measure(self, step, *arguments)

    def committed(self: CheckpointSaver, *arguments: Any) -> None:
        commit(self, *arguments)
        times["commit"] = time.monotonic()

    Passes.run, Validator.measure, CheckpointSaver._commit = slow, signalled, committed  # type: ignore
    try:
        return Train(config)(world), times
    finally:
        Passes.run, Validator.measure, CheckpointSaver._commit = run, measure, commit  # type: ignore
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(name, signal.SIG_DFL)


def train_until_it_breaks(world: World, config: PretrainConfig, step: int, killed: bool) -> tuple[float, Any]:
    """Train with steps of 0.1 s and a meter of 1 kWh a second; before `step` the rank breaks, or is killed.

    Returns the seconds that it took, and run.json as it was left."""
    import time

    from elm_megatron.engine.energy import EnergyMeter
    from elm_megatron.engine.reporter import Reporter
    from elm_megatron.engine.train import Trainer

    train_step, kwh, give_up, began = Trainer.train_step, EnergyMeter.kwh, Reporter.give_up, time.time()

    def breaking(self: Trainer) -> Any:
        time.sleep(0.1)
        if self.step == step - 1:
            raise RuntimeError("broken")
        return train_step(self)

    Trainer.train_step, EnergyMeter.kwh = breaking, lambda self: time.time() - began  # type: ignore
    if killed:
        Reporter.give_up = lambda self: None  # type: ignore[method-assign]
    try:
        Train(config)(world)
    except RuntimeError:
        from elm_megatron.engine import distributed

        distributed.leave()
    finally:
        Trainer.train_step, EnergyMeter.kwh, Reporter.give_up = train_step, kwh, give_up  # type: ignore
    return time.time() - began, RunFolder(config.run.dir).read()


def train_with_an_absent_rank(world: World, config: PretrainConfig, absent: int) -> str:
    """Train; one rank waits in step 3 instead of coming to a collective. Returns what the other one says."""
    import time

    import torch.distributed as dist

    from elm_megatron.engine import distributed
    from elm_megatron.engine.train import Trainer

    original, join = Trainer.train_step, distributed.join

    def train_step(self: Trainer) -> Any:
        if self.step == 2 and world.rank == absent:
            time.sleep(8)
            raise TimeoutError("woke up")
        return original(self)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    distributed.join = lambda *given, **named: join(*given, **{**named, "timeout_seconds": 3.0})
    try:
        return str(Train(config)(world))
    except (RuntimeError, TimeoutError) as error:
        return " ".join(getattr(error, "__notes__", []))
    finally:
        Trainer.train_step, distributed.join = original, join  # type: ignore[method-assign]
        if dist.is_initialized():
            distributed.leave()
