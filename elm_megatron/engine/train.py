"""The training loop: real megatron-core ranks, one step at a time.

Started by `python launch/pretrain.py …` through engine/job.py. Every rank runs the same `Trainer`; rank 0
alone writes metrics and run.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.transformer_config import TransformerConfig

from data_prep.errors import InputError
from data_prep.manifest import Manifest
from elm_megatron.config import PretrainConfig, TrainConfig
from elm_megatron.engine import data, distributed, loading, record, state
from elm_megatron.engine.checkpoint import Checkpoint, Checkpoints, Retention
from elm_megatron.engine.energy import EnergyMeter
from elm_megatron.engine.guards import Guard, not_finite
from elm_megatron.engine.liveness import Heartbeat
from elm_megatron.engine.losses import mean_loss, summed_loss
from elm_megatron.engine.metrics import Metrics
from elm_megatron.engine.optimizer import Optimizer
from elm_megatron.engine.samples import Samples
from elm_megatron.engine.schedule import learning_rate
from elm_megatron.engine.signals import Request, Signals, request_of
from elm_megatron.model import device as devices
from elm_megatron.model import llama
from elm_megatron.model.kernels import has_transformer_engine
from elm_megatron.run_folder import RunFolder, append_jsonl
from elm_megatron.world import Outcome, World


class Trainer:
    """One rank of a pretraining run.

    Tuning is a Trainer too: `tune/tuner.py` overrides what is marked as a seam (settings, data, modules, the
    forward step, which parameters are saved) and leaves the loop as it is.

    Args:
        config: the checked configuration.
        world: this rank's place.
        device: this rank's device; the process groups are already formed.
    """

    reported = 2  # sums a forward step reports
    saved = staticmethod(state.everything)  # which parameters a checkpoint holds
    loss = staticmethod(mean_loss)  # of a micro-batch

    def __init__(self, config: PretrainConfig, world: World, device: torch.device):
        self.config, self.world, self.device = config, world, device
        self.run = RunFolder(config.run.dir, [world.job_id, world.restart])
        self.signals = Signals()
        self.settings = self._settings()
        self.dp = parallel_state.get_data_parallel_world_size()
        self.dp_rank = parallel_state.get_data_parallel_rank()
        self.copies = self.dp * config.parallel.cp  # ranks with the same weights, which share gradients
        self._open_data()
        self.steps = self.settings.steps or self._steps_of_epochs()
        self.step = 0
        self.transformer_engine = device.type == "cuda" and has_transformer_engine()
        self.distributed_optimizer = self.settings.distributed_optimizer and self.copies > 1
        self._build_model()
        self.guard = Guard(self.settings.spike_factor)
        self.saver = Checkpoints(self.run, world, Retention.of(self.settings))
        self.forward_backward = get_forward_backward_func()
        self.peak_flops = devices.peak_flops(device, self.settings.precision)
        self.buffers: state.Buffers = {}
        self.metrics: Metrics | None = None
        self.valid_loss: float | None = None
        self.busy_seconds = 0.0
        self.heartbeat = Heartbeat(world, self.settings.stall_seconds)
        self.energy = EnergyMeter(device.type == "cuda", world.local_rank)

    # -- construction ---------------------------------------------------------------------------------

    def _settings(self) -> TrainConfig:
        """Seam: the group of keys that governs the loop."""
        return self.config.train

    def _open_data(self) -> None:
        """Seam: what is trained on and measured on."""
        train = self.settings
        self.manifest = Manifest.load(self.config.data.dir)
        self.train_set = Samples.open(self.config.data, self.manifest, train.seq_length, train.seed)
        self.valid_sets = data.open_validation(self.manifest, train.seq_length, train.seed, self.config.data)
        # Where ranks may hold unlike numbers of the tokens that count, their sums are divided by all of them.
        summed = self.config.data.eod_mask_loss or self.config.parallel.cp > 1
        self.loss = summed_loss if summed else mean_loss
        self.keep_apart = self.manifest.tokenizer.eos_id if self.config.data.reset_attention_mask else None

    def _steps_of_epochs(self) -> int:
        train, tokens = self.settings, self.manifest.splits["train"].tokens
        steps, dropped = data.steps_of_epochs(tokens, train)
        if self.world.rank == 0:
            print(f"{train.epochs:g} epochs are {steps} steps; {dropped} samples left over are dropped")
        return steps

    def _build_model(self) -> None:
        config, train = self.config, self.settings
        mcore = llama.transformer_config(
            config.model, config.parallel, train.precision, train.recompute, self.transformer_engine
        )
        mcore.calculate_per_token_loss = self.loss is summed_loss
        modules = self._modules(mcore)
        for module in modules:
            module.z_loss = train.z_loss
        ddp = DistributedDataParallelConfig(
            use_distributed_optimizer=self.distributed_optimizer,
            overlap_grad_reduce=self.copies > 1,
            overlap_param_gather=self.distributed_optimizer,
            grad_reduce_in_fp32=True,
        )
        self.chunks = [
            DistributedDataParallel(mcore, ddp, module.to(self.device), disable_bucketing=i > 0)
            for i, module in enumerate(modules)
        ]
        self.optimizer = Optimizer(self.chunks, train, self.distributed_optimizer)
        mcore.finalize_model_grads_func = finalize_model_grads
        # Between micro-batches gradients only add up; the last one's backward reduces them as they come.
        no_sync = [chunk.no_sync for chunk in self.chunks]
        mcore.no_sync_func = no_sync if len(no_sync) > 1 else no_sync[0]

    def _modules(self, mcore: TransformerConfig) -> list[torch.nn.Module]:
        """Seam: this rank's model chunks with their weights at the start of a new run."""
        modules = llama.build(self.config.model, self.config.parallel, mcore, self.transformer_engine)
        llama.initialize(modules, self.config.model, self.settings.seed)
        return modules

    # -- start and resume -----------------------------------------------------------------------------

    def start(self) -> None:
        """Load the newest checkpoint that verifies, or begin with initial weights."""
        checkpoint = self._newest_verified()
        if checkpoint is not None:
            state.restore(
                self.chunks, self.optimizer, checkpoint.reader(), checkpoint.step, choose=self.saved
            )
            self.step = checkpoint.step
        elif self.settings.init_from:
            self._begin_with(self.settings.init_from)
        if self.world.rank == 0:
            self._announce(checkpoint)
            self.metrics = Metrics(self.run, self.steps, self.step, self.settings.wandb)
        dist.barrier()

    def _begin_with(self, name: str) -> None:
        """Seam: start a new run from the weights of an old one."""
        old = loading.named(name, self.world, self.device)
        state.restore(self.chunks, self.optimizer, old.reader(), 0, moments=False)

    def _announce(self, checkpoint: Checkpoint | None) -> None:
        lost = self.run.cut_after(self.step)
        parallel = self.config.parallel
        print(
            f"{self.config.run.name}: {self.world.world_size} ranks (tp={parallel.tp} pp={parallel.pp} "
            f"vpp={parallel.vpp} dp={self.dp}), {self.steps} steps, {len(self.train_set):,} samples",
            flush=True,
        )
        if checkpoint is not None:
            print(f"resumed from step {self.step}; {lost} logged steps after it are done again", flush=True)
        self.run.update(
            state="running",
            step=self.step,
            steps=self.steps,
            **self._facts(),
            world_size=self.world.world_size,
            parameters=self.config.model.parameters(),
            started=self.run.read().get("started", time.time()),
        )

    def _facts(self) -> dict[str, Any]:
        """Seam: what run.json holds of the data."""
        facts = {
            "manifest_sha256": self.manifest.sha256,
            "unigram_entropy": self.manifest.splits["valid"].unigram_entropy,
        }
        if self.config.data.blend:
            facts["blend"] = self.train_set.facts(self.settings.consumed(self.step))
        return facts

    def _newest_verified(self) -> Checkpoint | None:
        """Where to go on from.

        Raises:
            InputError: the run's checkpoint was made from something else.
        """
        checkpoint = loading.newest_verified(self.run, self.world, self.device)
        for key, now in self._identity().items() if checkpoint else ():
            before = checkpoint.manifest.get(key)
            if before != now:
                raise InputError(
                    f"{self.run.path}: its checkpoint has another {key} ({before} before, {now} now)."
                )
        return checkpoint

    # -- the loop -------------------------------------------------------------------------------------

    def fit(self) -> Outcome:
        """Train to the last step, or until a signal asks to leave."""
        self.signals.install()
        self.heartbeat.start()
        self.start()
        if self.step == 0:
            self.evaluate()
        train, asked, began = self.settings, None, time.perf_counter()
        while self.step < self.steps and asked is None:
            row, asked = self.train_step()
            if self.metrics and (self.step % train.log_every == 0 or self.step == self.steps):
                self.metrics.train(row)
            self.valid_loss = None  # of this very step, for the checkpoint
            if self.step % train.eval_every == 0 or self.step == self.steps:
                self.evaluate()
                self._after_evaluation()
            if self.step % train.save_every == 0 or self.step == self.steps or asked:
                self.save(row)
        self.saver.wait()
        outcome = self._finish(asked, time.perf_counter() - began)
        self.heartbeat.stop()
        return outcome

    def train_step(self) -> tuple[dict[str, Any], Request | None]:
        """One update; returns its metrics row and what signals ask for."""
        train, began = self.settings, time.perf_counter()
        ids = self.train_set.ids(train.consumed(self.step), train.batch_size(self.step))
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        sums = self._run_batches(self.train_set, ids, forward_only=False)
        self.busy_seconds = time.perf_counter() - began  # before waiting for the others
        (total, count, *_), code = self._agree(sums)
        loss = total / count
        norm = self.optimizer.gradient_norm()
        weights = (weight for chunk in self.chunks for weight in chunk.parameters())
        self.guard.check(self.step + 1, loss, norm, lambda: not_finite(weights, sums))
        self.step += 1
        self.heartbeat.step = self.step
        if train.log_sample_ids and self.metrics:
            append_jsonl(self.run.samples, {"step": self.step, "ids": ids.tolist(), **self._origin(ids)})
        lr = learning_rate(self.step, self.steps, train)
        self.optimizer.set_learning_rate(lr)
        self.optimizer.update(norm)
        devices.synchronize(self.device)
        seconds = time.perf_counter() - began
        return self._row(loss, lr, norm, seconds), request_of(code)

    def _row(self, loss: float, lr: float, norm: float, seconds: float) -> dict[str, Any]:
        train = self.settings
        tokens = self._tokens(self.step) - self._tokens(self.step - 1)
        logged = self.step % train.log_every == 0 or self.step == self.steps
        memory = distributed.largest(devices.peak_memory_bytes(self.device), self.device) if logged else 0
        slowest, by = distributed.slowest(self.busy_seconds, self.device) if logged else (0, 1.0)
        flops = self.config.model.flops_per_token(train.seq_length) * tokens / seconds
        peak = self.peak_flops and self.peak_flops * self.world.world_size
        return {
            "step": self.step,
            "tokens": self._tokens(self.step),
            "loss": loss,
            "lr": lr,
            "grad_norm": norm,
            "tokens_per_second": tokens / seconds,
            "mfu": flops / peak if peak else None,
            "step_seconds": seconds,
            "memory_bytes": int(memory),
            "slowest_rank": slowest,
            "slowest_over_median": by,
            "time": time.time(),
        }

    def _forward_step(self, batches: Iterator[Any], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """Seam: one micro-batch through this stage, in the form megatron-core's schedules ask for."""
        batch = next(batches)
        output = model(
            batch.tokens,
            batch.position_ids,
            None,
            labels=batch.labels,
            loss_mask=batch.loss_mask,
            packed_seq_params=batch.packed,
        )
        return output, partial(self.loss, batch.loss_mask)

    def _origin(self, ids: np.ndarray) -> dict[str, list[int]]:
        """Seam: further columns of samples.jsonl; the datasets that samples of a blend come from."""
        return {"datasets": self.train_set.part_of(ids).tolist()} if self.config.data.blend else {}

    def _tokens(self, step: int) -> int:
        """Seam: tokens trained on in the first `step` updates."""
        return self.settings.consumed(step) * self.settings.seq_length

    def _batches(self, dataset: Any, ids: np.ndarray) -> Iterator[Any]:
        """Seam: this rank's micro-batches of a global batch."""
        size = self.settings.micro_batch_size
        return data.micro_batches(dataset, ids, size, self.dp_rank, self.dp, self.device, self.keep_apart)

    def _shape(self, dataset: Any, ids: np.ndarray) -> tuple[int, int]:
        """Seam: (rows, tokens a row) of every micro-batch of a global batch; stages exchange such tensors."""
        rows, length = self.settings.micro_batch_size, self.settings.seq_length
        return (rows, length) if self.keep_apart is None else (1, rows * length)

    def _run_batches(self, dataset: Any, ids: np.ndarray, forward_only: bool) -> list[float]:
        """Run one global batch through the pipeline; returns this rank's sums, Σ loss in nats, Σ tokens, ….

        Only tensor-parallel rank 0 of the last stage reports numbers, so that their sum over the world
        counts every token once.
        """
        batches = [self._batches(dataset, ids) for _ in self.chunks]
        rows, length = self._shape(dataset, ids)
        results = self.forward_backward(
            forward_step_func=self._forward_step,
            data_iterator=batches if len(batches) > 1 else batches[0],
            model=self.chunks if len(self.chunks) > 1 else self.chunks[0],
            num_microbatches=len(ids) // (self.settings.micro_batch_size * self.dp),
            seq_length=length,
            micro_batch_size=rows,
            forward_only=forward_only,
        )
        reports = parallel_state.get_tensor_model_parallel_rank() == 0
        if not results or not reports:
            return [0.0] * self.reported
        return torch.stack(results).double().sum(0).tolist()

    def _agree(self, sums: list[float]) -> tuple[list[float], int]:
        """The sums over all ranks, and the strongest request any rank has received."""
        codes = [float(self.signals.code == code) for code in (1, 2)]
        shared = torch.tensor([*sums, *codes], dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        *sums, requeue, stop = shared.tolist()
        return sums, 2 if stop else int(requeue > 0)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss per token of the validation split, in nats; logged by rank 0, also per language."""
        for chunk in self.chunks:
            chunk.eval()
        sums = {name: self._sums_over(dataset) for name, dataset in self.valid_sets.items()}
        total, count, *more = (sum(column) for column in zip(*sums.values(), strict=True))
        loss = total / count
        for chunk in self.chunks:
            chunk.train()
        if self.metrics:
            perplexity = math.exp(min(loss, 700.0))
            row = {"step": self.step, "loss": loss, "perplexity": perplexity, "time": time.time()}
            row |= {f"loss_{name}": part[0] / part[1] for name, part in sums.items() if name}
            self.metrics.valid({**row, **self._more_of_validation(more, count)})
        self.valid_loss = loss
        return loss

    def _sums_over(self, dataset: Any) -> list[float]:
        """The sums a forward step reports, over a whole validation set (or `eval_batches` of it)."""
        train = self.settings
        # Interleaved stages take their micro-batches in groups of pp.
        group = self.config.parallel.pp if self.config.parallel.vpp > 1 else 1
        ids = data.padded_ids(len(dataset), train.micro_batch_size * self.dp * group)
        if train.eval_batches is not None:
            ids = ids[: train.eval_batches * train.global_batch_size]
        return self._agree(self._run_batches(dataset, ids, forward_only=True))[0]

    def _more_of_validation(self, sums: list[float], count: float) -> dict[str, float]:
        """Seam: further columns of valid.jsonl, from the sums after the first two."""
        return {}

    def _after_evaluation(self) -> None:
        """Seam: called on every rank after each validation that follows an update."""

    # -- saving and leaving ---------------------------------------------------------------------------

    def save(self, row: dict[str, Any]) -> None:
        """Copy this rank's numbers and start writing them; training goes on meanwhile."""
        self.saver.wait()
        spread = self.distributed_optimizer
        pieces = state.snapshot(self.chunks, self.optimizer, spread, self.saved, self.buffers)
        consumed = self.settings.consumed(self.step)
        facts = {"consumed_samples": consumed, "loss": row["loss"], "valid_loss": self.valid_loss}
        facts |= self._identity()
        self.saver.save(self.step, pieces, facts)
        if self.metrics:
            self.run.update(step=self.step, tokens=row["tokens"], loss=row["loss"], **self._facts())

    def _identity(self) -> dict[str, Any]:
        """Seam: what a checkpoint's manifest holds beside the numbers, and a resumed run must have too."""
        return {"blend": [m.sha256 for m in self.train_set.manifests]} if self.config.data.blend else {}

    def _finish(self, asked: Request | None, seconds: float) -> Outcome:
        kwh = distributed.total(self.energy.kwh(), self.device)
        outcome: Outcome = {"requeue": "requeue", "stop": "cancelled", None: "done"}[asked]
        if self.step == self.steps:
            outcome = "done"
        if self.metrics:
            self.metrics.close()
            method = self.energy.method
            if self.config.cluster.ear:
                method += f"; the nodes' by EAR: eacct -j {self.world.job_id}"
            record.finish(self.run, outcome, self.step, seconds, kwh, method)
        return outcome
