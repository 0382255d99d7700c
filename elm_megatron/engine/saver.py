"""When a checkpoint is made and what one holds: this rank's numbers, the facts beside them, and the way back.

How its files are written is the affair of `checkpoint/save.py`.
"""

from __future__ import annotations

import time
from typing import Any

import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel

from conf.errors import InputError
from elm_megatron.checkpoint import rank_state
from elm_megatron.checkpoint.load import newest_verified
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.checkpoint.retention import Retention
from elm_megatron.checkpoint.save import CheckpointSaver
from elm_megatron.engine.optimizer import Optimizer
from elm_megatron.engine.task import Task
from elm_megatron.run.decay import last_before_decay, set_aside_decayed
from elm_megatron.run.folder import RunFolder


class Saver:
    """One rank's part in saving and restoring a run.

    Args:
        task: says which parameters a checkpoint holds, and what belongs to the run's identity.
        run: the run's folder.
        chunks: this rank's model chunks.
        optimizer: theirs.
        distributed_optimizer: its state is spread over the data-parallel ranks.

    Attributes:
        seconds: how long training has waited for checkpoints.
    """

    def __init__(
        self,
        task: Task,
        run: RunFolder,
        chunks: list[DistributedDataParallel],
        optimizer: Optimizer,
        distributed_optimizer: bool,
    ):
        self._task, self._run = task, run
        self._chunks, self._optimizer, self._distributed = chunks, optimizer, distributed_optimizer
        self._files = CheckpointSaver(
            run, task.world, Retention.of(task.settings, task.config.eval.every_checkpoint)
        )
        self._buffers: rank_state.Buffers = {}
        self.seconds = 0.0

    def restore_newest(self, steps: int) -> Checkpoint | None:
        """Put the newest checkpoint that verifies into the model; None when the run has none.

        Args:
            steps: updates of the whole run.

        Raises:
            InputError: there are some and none is intact, or it was made from something else.
        """
        self._leave_decay(steps)
        checkpoint = newest_verified(self._run, self._task.world, self._task.device)
        if checkpoint is None:
            return None
        for key, now in self._task.identity().items():
            if key in self._task.younger_identity and key not in checkpoint.manifest:
                continue
            before = checkpoint.manifest.get(key)
            if before != now:
                raise InputError(
                    f"{self._run.path}: its checkpoint has another {key} ({before} before, {now} now)."
                )
        reader = checkpoint.reader()
        rank_state.restore(self._chunks, self._optimizer, reader, checkpoint.step, choose=self._task.is_saved)
        return checkpoint

    def _leave_decay(self, steps: int) -> None:
        """Make a WSD run that was lengthened after its decay began go on from a step before it.

        Raises:
            InputError: on every rank: there is none.
        """
        task, settings = self._task, self._task.settings
        if settings.schedule != "wsd":
            return
        refusal: list[str | None] = [None]
        if task.world.rank == 0:
            try:
                good = last_before_decay(self._run, steps, settings.wsd_decay_steps, task.group)
                if good is not None:
                    names = set_aside_decayed(self._run, good)
                    task.log(
                        f"{task.group}.steps={steps}: the run was lengthened after its decay began; it goes "
                        f"on from {good.name}, the last checkpoint before. Kept as they are: "
                        f"{', '.join(names)}."
                    )
            except InputError as error:
                refusal = [str(error)]
        dist.broadcast_object_list(refusal, src=0, device=task.device)
        if refusal[0] is not None:
            raise InputError(refusal[0])

    def remove_leftovers(self) -> None:
        """Remove what killed saves have left; for rank 0, before any rank saves."""
        self._files.remove_leftovers()

    def save(self, step: int, blocking: bool, **facts: Any) -> None:
        """Copy this rank's numbers and start writing them; an earlier save is waited for.

        Args:
            step: updates done.
            blocking: training waits for it, so that the writers need not spare its cores.
            facts: what the manifest holds beside the files: loss, valid_loss, ….
        """
        began = time.perf_counter()
        self._files.wait()
        task = self._task
        shards = rank_state.snapshot(
            self._chunks, self._optimizer, self._distributed, task.is_saved, self._buffers
        )
        facts = {"consumed_samples": task.settings.consumed(step), **facts, **task.identity()}
        self._files.save(step, shards, facts, blocking)
        self.seconds += time.perf_counter() - began

    def annotate(self, step: int, **facts: Any) -> None:
        """Add facts to the manifest of a committed step; for rank 0."""
        self._files.annotate(step, **facts)

    def check(self) -> None:
        """Raise what went wrong in a save that has ended; one under way is not waited for."""
        self._files.check()

    def wait(self) -> None:
        """Wait until the save under way is written (rank 0: committed), and raise what went wrong in it."""
        began = time.perf_counter()
        self._files.wait()
        self.seconds += time.perf_counter() - began
