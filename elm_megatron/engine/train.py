"""The training loop: real megatron-core ranks, one step at a time.

    python launch/pretrain.py model=tiny        (or finetune.py; engine/job.py starts the ranks)

Every rank runs the same `Trainer`. One step, in order:

    which samples       samples.py       a function of the seed and of how many samples were consumed
    micro-batches       data.py          this rank's rows; packing.py where documents are kept apart
    forward, backward   passes.py        megatron-core's pipeline schedule over the micro-batches
      the loss          pretraining.py   the Task's; tune/sft.py and tune/dpo.py have theirs; losses.py
      sharing gradients data_parallel.py while the last micro-batch goes backward
    agreement           signals.py       Σ loss over all ranks, and whether a rank was asked to leave or save
    gradient norm       optimizer.py     megatron-core's AdamW, taken apart
    refusal             guards.py        numbers that are not finite, or a loss that has jumped: no update
    learning rate       schedule.py      a function of the step
    update              optimizer.py     clipping, AdamW, master weights
    cost                meter.py         seconds, tokens, MFU, memory, the slowest rank
    log                 reporter.py      metrics.jsonl, TensorBoard (metrics.py), run.json (summary.py)

Between steps: validation.py measures, early_stop.py judges, saver.py makes a checkpoint (the files are
written by checkpoint/save.py while training goes on). profiler.py traces the steps that are asked for, and
liveness.py ends the job when a rank falls silent.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from elm_megatron.engine import distributed, early_stop
from elm_megatron.engine.data_parallel import wrapped
from elm_megatron.engine.energy import EnergyMeter
from elm_megatron.engine.guards import BadNumbers, Guard, not_finite
from elm_megatron.engine.liveness import Heartbeat
from elm_megatron.engine.meter import Meter
from elm_megatron.engine.optimizer import Optimizer
from elm_megatron.engine.passes import Passes
from elm_megatron.engine.profiler import Profiler
from elm_megatron.engine.reporter import Reporter
from elm_megatron.engine.saver import Saver
from elm_megatron.engine.schedule import learning_rate
from elm_megatron.engine.signals import Request, Signals
from elm_megatron.engine.task import Task
from elm_megatron.engine.validation import Validator
from elm_megatron.model import device as devices
from elm_megatron.model import llama, self_check
from elm_megatron.model.kernels import require_fp8, uses_transformer_engine
from elm_megatron.run.folder import RunFolder, Superseded
from elm_megatron.run.requests import Requests
from elm_megatron.run.world import Outcome

LATE_SECONDS = 5.0  # for a validation after the last save, when the run was requested to leave
OUTCOMES: dict[Request, Outcome] = {"requeue": "requeue", "stop": "cancelled"}


class Trainer:
    """One rank of a run: the loop, and the parts that it owns.

    Args:
        task: what is learnt, and from what.

    Attributes:
        step, steps: updates done, and of the whole run; early stopping ends it before `length`.
        chunks: this rank's model chunks.
        optimizer: theirs.
        distributed_optimizer: the optimizer's state is spread over the ranks with the same weights.
        kernels: what serves each operation, compared with torch before the first step.
    """

    def __init__(self, task: Task):
        config, settings, world, device = task.config, task.settings, task.world, task.device
        self.task, self.settings, self.device = task, settings, device
        run = RunFolder(config.run.dir, [world.job_id, world.restart])
        self.signals = Signals(Requests(run) if world.rank == 0 else None)
        self.length = self.steps = settings.steps or task.steps_of_epochs()
        self.step = 0
        if settings.precision == "fp8":
            require_fp8(device)
        data_parallel_size = task.dp * config.parallel.cp
        self.distributed_optimizer = settings.distributed_optimizer and data_parallel_size > 1
        self.busy = devices.Stopwatch(device)  # of this rank's own passes
        self._build_model(data_parallel_size)
        self.passes = Passes(task, self.chunks)
        self.validator = Validator(task, self.passes, self.signals)
        self.saver = Saver(task, run, self.chunks, self.optimizer, self.distributed_optimizer)
        energy = EnergyMeter(devices.nvml_name(device), world.local_rank)
        self.reporter = Reporter(task, run, self.steps, energy, self.saver, self.kernels)
        self.guard = Guard(settings.spike_factor)
        self.meter = Meter(config.model, settings, world, device, energy)
        self.profiler = Profiler(settings, run.path, world, device)
        self.heartbeat = Heartbeat(world, settings.stall_seconds)
        self.valid_loss: float | None = None  # of this very step, for its checkpoint

    def _build_model(self, data_parallel_size: int) -> None:
        task, train = self.task, self.settings
        engine = task.transformer_engine and uses_transformer_engine(
            self.device, train.precision, task.packed
        )
        mcore = llama.transformer_config(
            task.config.model, task.config.parallel, train.precision, train.recompute, engine
        )
        mcore.calculate_per_token_loss = task.per_token_loss
        modules = task.modules(mcore, engine)
        for module in modules:
            module.z_loss = train.z_loss
        self.kernels = self_check.verify(modules, mcore, self.device, task.packed)
        spread = self.distributed_optimizer
        self.chunks = wrapped(modules, mcore, self.device, data_parallel_size, spread, self.busy.stop)
        self.optimizer = Optimizer(self.chunks, train, spread)

    # -- the loop -------------------------------------------------------------------------------------

    def fit(self) -> Outcome:
        """Train to the last step, or until a signal requests to leave.

        Raises:
            BadNumbers: loss or gradient is not finite, or the loss has jumped.
            InputError: data or an earlier checkpoint do not fit.
        """
        self.signals.install()
        self.heartbeat.start()
        try:
            outcome = self._run()
        except BaseException as error:
            self.reporter.give_up()
            if isinstance(error, torch.OutOfMemoryError):
                self.profiler.out_of_memory()
            if isinstance(error, RuntimeError) and not isinstance(error, BadNumbers | Superseded):
                error.add_note(self.heartbeat.account(error))
            raise
        self.heartbeat.stop()
        return outcome

    def _run(self) -> Outcome:
        resumed = self._start()
        request = self._first_validation(resumed)
        while self.step < self.steps and request is None:
            try:
                with self.profiler.around(self.step + 1):
                    row, request = self.train_step()
            except BadNumbers:
                self.saver.wait()  # the last good checkpoint may still be on its way
                raise
            self.saver.check()
            self.reporter.trained(row)
            request = self._between_steps(row, request)
        self.profiler.stop(self.step)
        self.saver.wait()
        return self._leave(request)

    def train_step(self) -> tuple[dict[str, Any], Request | None]:
        """One update; returns its metrics row and what signals request."""
        task, train, began = self.task, self.settings, time.perf_counter()
        self.busy.start()
        task.before_step(self.step)
        ids = task.train_set.ids(train.consumed(self.step), train.batch_size(self.step))
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        self.passes.data_seconds = 0.0
        sums = self.passes.run(task.train_set, ids, forward_only=False)
        (total, count, *_), request = self.signals.agree(sums, self.device)
        loss = total / count
        norm = self.optimizer.gradient_norm()
        weights = (weight for chunk in self.chunks for weight in chunk.parameters())
        self.guard.check(self.step + 1, loss, norm, lambda: not_finite(weights, sums))
        self.step += 1
        self.heartbeat.step = self.step
        self.reporter.samples(self.step, ids)
        lr = learning_rate(self.step, self.steps, train)
        self.optimizer.set_learning_rate(lr)
        self.optimizer.update(norm)
        devices.synchronize(self.device)
        seconds = time.perf_counter() - began
        return self._row(loss, lr, norm, seconds), request

    def _row(self, loss: float, lr: float, norm: float, seconds: float) -> dict[str, Any]:
        before, tokens = self.task.tokens(self.step - 1), self.task.tokens(self.step)
        logged = self.step % self.settings.log_every == 0 or self.step == self.steps
        row = {
            "step": self.step,
            "tokens": tokens,
            "loss": loss,
            "lr": lr,
            "grad_norm": norm,
            **self.meter.step(tokens - before, seconds, self.busy.seconds(), logged),
            "data_seconds": self.passes.data_seconds,
            "time": time.time(),
        }
        return self.task.adjust_row(row)

    # -- between steps --------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Go on from the newest checkpoint that verifies, or begin with initial weights."""
        checkpoint = self.saver.restore_newest(self.steps)
        if checkpoint is not None:
            self.step = checkpoint.step
            self.guard.remember(checkpoint.manifest.get("recent_losses", []))
        elif self.settings.init_from:
            self.task.begin_with(self.settings.init_from, self.chunks, self.optimizer)
        if self.task.world.rank == 0:
            self.saver.remove_leftovers()
        self.reporter.begin(checkpoint)
        dist.barrier()
        return checkpoint is not None

    def _first_validation(self, resumed: bool) -> Request | None:
        """Measure the model at the start, or what an earlier attempt left no time for.

        Returns:
            What signals request by then. The run leaves before its first update, and has a checkpoint.
        """
        due = self.step == 0 or self._lacks_validation()
        if due and self._validate() and resumed:
            self._annotate()
        request = self._requested()
        if request and not resumed:
            self.save({"tokens": 0, "loss": None}, blocking=True)
        return request

    def _lacks_validation(self) -> bool:
        due = self.validator.is_due(self.step, self.steps)
        return due and self.reporter.lacks_validation(self.step)

    def _between_steps(self, row: dict[str, Any], request: Request | None) -> Request | None:
        """Validate and save where it is due; returns what signals request by then."""
        self.valid_loss = None
        # A rank that is requested to leave may have seconds: save first.
        if request is None and self.validator.is_due(self.step, self.steps):
            self._validate()
            request = self._requested()
        last = self.step == self.steps
        due = self.step % self.settings.save_every == 0 or self.signals.take_save()
        if not (request or last or due):
            return None
        self.save(row, blocking=last or request is not None)
        return request or self._requested()

    def _validate(self, seconds: float = 0.0) -> bool:
        """Measure and judge; False when it was broken off, since a rank is requested to leave."""
        row = self.validator.measure(self.step, seconds)
        if row is None:
            return False
        self.valid_loss = row["loss"]
        self.reporter.measured(row)
        if self.task.patience is not None:
            self._judge(self.task.patience)
        return True

    def _judge(self, patience: int) -> None:
        """Early stop: keep the best, and end when `patience` validations brought no better one."""
        rank0 = self.task.world.rank == 0
        mine = early_stop.judge(self.reporter.losses(), patience) if rank0 else None
        verdict = early_stop.shared(mine, self.device)
        if verdict.best:
            self.save({"tokens": self.task.tokens(self.step), "loss": self.valid_loss}, blocking=True)
            self._publish()
        if verdict.enough and self.step < self.steps:
            self.task.log(f"stopped early: the validation loss was best {patience} validations ago")
            self.steps = self.step

    def save(self, row: dict[str, Any], blocking: bool = False) -> None:
        """Make a checkpoint of this step; training goes on while it is written, unless it is `blocking`.

        Args:
            row: holds its `tokens` and `loss`.
        """
        facts = {
            "steps": self.length,
            "loss": row["loss"],
            "valid_loss": self.valid_loss,
            "recent_losses": self.guard.losses,
        }
        self.saver.save(self.step, blocking, **facts)
        self.reporter.saving(self.step, row["tokens"], row["loss"])

    def _annotate(self) -> None:
        """Add this step's validation to its checkpoint, which was committed before."""
        if self.task.world.rank == 0:
            self.saver.annotate(self.step, valid_loss=self.valid_loss)

    def _requested(self) -> Request | None:
        return self.signals.agree([], self.device)[1]

    def _publish(self) -> None:
        self.saver.wait()
        dist.barrier()
        self.task.publish(self.step)

    def _leave(self, request: Request | None) -> Outcome:
        """Make good for the last validation if there is time, publish the result, and sum up."""
        done = self.step == self.steps
        if done and request and self._lacks_validation():
            done = self._measured_late()
        if done and not (self.task.patience and distributed.of_first(self.task.published, self.device)):
            self._publish()
        outcome: Outcome = "done" if done or request is None else OUTCOMES[request]
        self.reporter.finish(outcome, self.step)
        return outcome

    def _measured_late(self) -> bool:
        """After the checkpoint of the last step was committed."""
        if not self._validate(LATE_SECONDS):
            return False
        self._annotate()
        return True
