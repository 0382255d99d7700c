"""The training loop: real megatron-core ranks, one step at a time.

Started by `python launch/pretrain.py …` through engine/job.py. Every rank runs the same `Trainer`; rank 0
alone writes metrics and run.json.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import TrainConfig
from data_prep.manifest import Manifest
from elm_megatron.checkpoint import rank_state
from elm_megatron.checkpoint.load import newest_verified, verified
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.checkpoint.retention import Retention
from elm_megatron.checkpoint.save import CheckpointSaver
from elm_megatron.engine import data, distributed, record
from elm_megatron.engine.energy import EnergyMeter
from elm_megatron.engine.guards import BadNumbers, Guard, not_finite
from elm_megatron.engine.liveness import Heartbeat
from elm_megatron.engine.losses import mean_loss, summed_loss
from elm_megatron.engine.meter import Meter
from elm_megatron.engine.metrics import Metrics
from elm_megatron.engine.optimizer import Optimizer
from elm_megatron.engine.samples import Samples
from elm_megatron.engine.schedule import learning_rate
from elm_megatron.engine.signals import Request, Signals, request_of
from elm_megatron.engine.validation import Validation
from elm_megatron.engine.wrap import wrapped
from elm_megatron.model import device as devices
from elm_megatron.model import initial_weights, llama
from elm_megatron.model.kernels import require_fp8, uses_transformer_engine
from elm_megatron.run.folder import RunFolder, append_jsonl
from elm_megatron.run.steps import step_folder
from elm_megatron.run.world import Outcome, World
from elm_megatron.sources.source import beginning


class Trainer(Validation):
    """One rank of a pretraining run.

    Tuning is a Trainer too: `tune/tuner.py` overrides what is marked as a seam (settings, data, modules, the
    forward step, which parameters are saved) and leaves the loop as it is.

    Args:
        config: the checked configuration.
        world: this rank's place.
        device: this rank's device; the process groups are already formed.
    """

    saved = staticmethod(rank_state.everything)  # which parameters a checkpoint holds

    def __init__(self, config: PretrainConfig, world: World, device: torch.device):
        super().__init__()
        self.config, self.world, self.device = config, world, device
        self.run = RunFolder(config.run.dir, [world.job_id, world.restart])
        self.signals = Signals()
        self.settings = self._settings()
        self.dp = parallel_state.get_data_parallel_world_size()
        self.dp_rank = parallel_state.get_data_parallel_rank()
        self.copies = self.dp * config.parallel.cp  # ranks with the same weights, which share gradients
        self.vpp_group = config.parallel.pp if config.parallel.vpp > 1 else 1
        self._open_data()
        self.steps = self.settings.steps or self._steps_of_epochs()
        self.step = 0
        if self.settings.precision == "fp8":
            require_fp8(device)
        self.transformer_engine = uses_transformer_engine(device, self.settings.precision)
        self.distributed_optimizer = self.settings.distributed_optimizer and self.copies > 1
        self.busy = devices.Stopwatch(device)  # of this rank's own passes
        self._build_model()
        self.guard = Guard(self.settings.spike_factor)
        self.saver = CheckpointSaver(self.run, world, Retention.of(self.settings))
        self.meter = Meter(config.model, self.settings, world, device)
        self.buffers: rank_state.Buffers = {}
        self.metrics: Metrics | None = None
        self.valid_loss: float | None = None
        self.save_seconds = 0.0
        self.heartbeat = Heartbeat(world, self.settings.stall_seconds)
        self.energy = EnergyMeter(devices.nvml_name(device), world.local_rank)

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
        spread = self.distributed_optimizer
        self.chunks = wrapped(modules, mcore, self.device, self.copies, spread, self.busy.stop)
        self.optimizer = Optimizer(self.chunks, train, spread)

    def _modules(self, mcore: TransformerConfig) -> list[torch.nn.Module]:
        """Seam: this rank's model chunks with their weights at the start of a new run."""
        modules = llama.build(self.config.model, self.config.parallel, mcore, self.transformer_engine)
        initial_weights.initialize(modules, self.config.model, self.settings.seed)
        return modules

    # -- start and resume -----------------------------------------------------------------------------

    def start(self) -> None:
        """Load the newest checkpoint that verifies, or begin with initial weights."""
        checkpoint = self._newest_verified()
        if checkpoint is not None:
            rank_state.restore(
                self.chunks, self.optimizer, checkpoint.reader(), checkpoint.step, choose=self.saved
            )
            self.step = checkpoint.step
            self.guard.remember(checkpoint.manifest.get("recent_losses", []))
        elif self.settings.init_from:
            self._begin_with(self.settings.init_from)
        if self.world.rank == 0:
            self.saver.remove_leftovers()
            self._announce(checkpoint)
            self.metrics = Metrics(self.run, self.steps, self.step, self.settings.wandb)
        dist.barrier()

    def _begin_with(self, name: str) -> None:
        """Seam: start a new run from the weights of an old one.

        Raises:
            InputError: it is of another size, or its tokens have other meanings.
        """
        source = beginning(name, self.manifest.tokenizer.sha256)
        old = verified(step_folder(source.run, source.step), self.world, self.device)
        reader = old.reader()
        rank_state.restore(self.chunks, self.optimizer, reader, 0, moments=False)
        left = set(reader.names()).difference(*distributed.gathered(rank_state.names(self.chunks)))
        if left:
            raise InputError(
                f"train.init_from={name}: this model has no place for {len(left)} of its tensors, such as "
                f"{min(left)}; take the model it was trained with."
            )

    def _announce(self, checkpoint: Checkpoint | None) -> None:
        lost = self.run.cut_after(self.step or -1)  # step 0 is measured again
        parallel = self.config.parallel
        print(
            f"{self.config.run.name}: {self.world.world_size} ranks (tp={parallel.tp} pp={parallel.pp} "
            f"vpp={parallel.vpp} dp={self.dp}), {self.steps} steps, {len(self.train_set):,} samples",
            flush=True,
        )
        for note in self.settings.notes("train" if hasattr(self.config, "train") else "tune"):
            print(f"note: {note}", flush=True)
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
        checkpoint = newest_verified(self.run, self.world, self.device)
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
            self._validate()
        elif self._lacks_validation():
            self._validate_late()
        train, asked, began = self.settings, None, time.perf_counter()
        while self.step < self.steps and asked is None:
            try:
                row, asked = self.train_step()
            except BadNumbers:
                self.saver.wait()  # the last good checkpoint may still be on its way
                raise
            self.saver.check()
            if self.metrics and (self.step % train.log_every == 0 or self.step == self.steps):
                self.metrics.train(row)
            self.valid_loss = None  # of this very step, for the checkpoint
            if self._validation_is_due() and not asked:  # who is asked to leave may have seconds: save first
                self._validate()
            if self.step % train.save_every == 0 or self.step == self.steps or asked:
                self.save(row, blocking=asked is not None or self.step == self.steps)
        waiting = time.perf_counter()
        self.saver.wait()
        self.save_seconds += time.perf_counter() - waiting
        if asked and self.step == self.steps:
            self._validate_late()
        outcome = self._finish(asked, time.perf_counter() - began)
        self.heartbeat.stop()
        self.energy.stop()
        return outcome

    def train_step(self) -> tuple[dict[str, Any], Request | None]:
        """One update; returns its metrics row and what signals ask for."""
        train, began = self.settings, time.perf_counter()
        self.busy.start()
        ids = self.train_set.ids(train.consumed(self.step), train.batch_size(self.step))
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        self.data_seconds = 0.0
        sums = self._run_batches(self.train_set, ids, forward_only=False)
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
        before, tokens = self._tokens(self.step - 1), self._tokens(self.step)
        logged = self.step % self.settings.log_every == 0 or self.step == self.steps
        return {
            "step": self.step,
            "tokens": tokens,
            "loss": loss,
            "lr": lr,
            "grad_norm": norm,
            **self.meter.step(tokens - before, seconds, self.busy.seconds(), logged),
            "data_seconds": self.data_seconds,
            "time": time.time(),
        }

    def _origin(self, ids: np.ndarray) -> dict[str, list[int]]:
        """Seam: further columns of samples.jsonl; the datasets that samples of a blend come from."""
        return {"datasets": self.train_set.part_of(ids).tolist()} if self.config.data.blend else {}

    def _tokens(self, step: int) -> int:
        """Seam: tokens trained on in the first `step` updates."""
        return self.settings.consumed(step) * self.settings.seq_length

    # -- saving and leaving ---------------------------------------------------------------------------

    def save(self, row: dict[str, Any], blocking: bool = False) -> None:
        """Copy this rank's numbers and start writing them; training goes on meanwhile unless `blocking`."""
        began = time.perf_counter()
        self.saver.wait()
        spread = self.distributed_optimizer
        shards = rank_state.snapshot(self.chunks, self.optimizer, spread, self.saved, self.buffers)
        consumed = self.settings.consumed(self.step)
        facts = {"consumed_samples": consumed, "loss": row["loss"], "valid_loss": self.valid_loss}
        facts |= {"recent_losses": self.guard.losses, **self._identity()}
        self.saver.save(self.step, shards, facts, blocking)
        self.save_seconds += time.perf_counter() - began
        if self.metrics:
            self.run.update(step=self.step, tokens=row["tokens"], loss=row["loss"], **self._facts())

    def _identity(self) -> dict[str, Any]:
        """Seam: what a checkpoint's manifest holds beside the numbers, and a resumed run must have too."""
        if self.config.data.blend:
            return {"blend": [m.sha256 for m in self.train_set.manifests]}
        return {"manifest_sha256": self.manifest.sha256}

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
            record.finish(self.run, outcome, self.step, seconds, self.save_seconds, kwh, method)
        return outcome
