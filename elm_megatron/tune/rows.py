"""Rows and micro-batches of examples: padded and grouped by length, or packed and kept apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from megatron.core.packed_seq_params import PackedSeqParams

from elm_megatron.chat.examples import Example
from elm_megatron.engine.packing import packed_params
from elm_megatron.model import device as devices

WINDOW = 16  # global batches among which examples are sorted by length


@dataclass(frozen=True)
class Batch:
    """One micro-batch on the device.

    Attributes:
        tokens, labels, position_ids: int64 [b, s].
        weights: fp32 [b, s], 1 where the label is part of an answer.
        packed: where examples begin and end, for packed rows (b is 1 then).
        answers: answer tokens of the whole global batch, over all ranks and micro-batches.
        share: micro-batches of the whole global batch; megatron-core averages over them.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    weights: torch.Tensor
    packed: PackedSeqParams | None
    answers: float = 1.0
    share: int = 1


class Rows:
    """Examples laid out in rows, and the order in which steps take them.

    Args:
        examples: encoded examples; rows are made of these.
        length: tokens of a full row; a multiple of `multiple`, and more than the longest example has.
        batch: rows of a global batch.
        seed: of the order.
        pad_id: fills rows, with no weight.
        packing: put several examples into a row.
        draws: how often each example stands in an epoch; None is once.
        multiple: rows are padded to a multiple of this (sequence parallelism cuts them).
    """

    def __init__(
        self,
        examples: list[Example],
        length: int,
        batch: int,
        seed: int,
        pad_id: int,
        packing: bool = False,
        draws: list[int] | None = None,
        multiple: int = 1,
    ):
        self.examples, self.length, self.batch = examples, length, batch
        self.seed, self.pad_id, self.packing, self.multiple = seed, pad_id, packing, multiple
        order = np.repeat(np.arange(len(examples)), draws) if draws else np.arange(len(examples))
        self.rows = self._packed(order) if packing else [(int(i),) for i in order]

    def __len__(self) -> int:
        return len(self.rows)

    def _packed(self, order: np.ndarray) -> list[tuple[int, ...]]:
        """Best fit by falling length: each example into the fullest row that has room, no example cut."""
        order = np.random.Generator(np.random.PCG64(self.seed)).permutation(order)
        sizes = np.array([len(self.examples[i]) - 1 for i in order])
        rows: list[list[int]] = []
        with_room: list[list[int]] = [[] for _ in range(self.length + 1)]  # rows by what is left in them
        for place in np.argsort(-sizes, kind="stable"):
            size = int(sizes[place])
            room = next((room for room in range(size, self.length + 1) if with_room[room]), None)
            if room is None:
                rows.append([])
                row, room = len(rows) - 1, self.length
            else:
                row = with_room[room].pop()
            rows[row].append(int(order[place]))
            with_room[room - size].append(row)
        return [tuple(row) for row in rows]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Tokens the model sees of each row, int64 [rows]."""
        return np.array([sum(len(self.examples[i]) - 1 for i in row) for row in self.rows], np.int64)

    @cached_property
    def answers(self) -> np.ndarray:
        """Answer tokens of each row, int64 [rows]."""
        return np.array([sum(self.examples[i].answer[1:].sum() for i in row) for row in self.rows], np.int64)

    # -- order ----------------------------------------------------------------------------------------

    @lru_cache(maxsize=4)  # noqa: B019 - one object per run
    def epoch(self, number: int) -> np.ndarray:
        """Row ids of one epoch in order, int64 [rows]: a function of seed and number alone.

        Unpacked rows are grouped: among some batches' worth of shuffled rows, neighbours in length share a
        batch, and the batches are shuffled again. Epochs follow without a gap, so the first rows complete
        the batch that the epoch before began.
        """
        rng = np.random.Generator(np.random.PCG64([self.seed, number]))
        order = rng.permutation(len(self.rows))
        if self.packing:
            return order
        first = -number * len(self.rows) % self.batch
        pieces = [order[:first]]
        for start in range(first, len(order), WINDOW * self.batch):
            window = order[start : start + WINDOW * self.batch]
            window = window[np.argsort(self.sizes[window], kind="stable")]
            whole = len(window) // self.batch
            groups = [window[i * self.batch : (i + 1) * self.batch] for i in range(whole)]
            pieces += [groups[i] for i in rng.permutation(whole)] + [window[whole * self.batch :]]
        return np.concatenate(pieces)

    def ids(self, consumed: int, count: int) -> np.ndarray:
        """The next `count` row ids after `consumed`, int64 [count]."""
        epochs, offsets = np.divmod(np.arange(consumed, consumed + count), len(self.rows))
        return np.array([self.epoch(int(e))[o] for e, o in zip(epochs, offsets, strict=True)], np.int64)

    # -- tensors --------------------------------------------------------------------------------------

    def width(self, ids: np.ndarray) -> int:
        """Tokens of a padded row in a global batch: its longest, so that all ranks and stages agree."""
        if self.packing:
            return self.length
        longest = max(int(self.sizes[ids[ids >= 0]].max(initial=1)), 1)
        return -(-longest // self.multiple) * self.multiple

    def micro_batches(
        self, ids: np.ndarray, size: int, dp_rank: int, dp: int, device: torch.device
    ) -> Iterator[Batch]:
        """This rank's micro-batches of a global batch; an id of -1 is a row without examples."""
        width, unit = self.width(ids), size * dp
        answers = float(max(1, self.answers[ids[ids >= 0]].sum()))
        for start in range(0, len(ids), unit):
            mine = ids[start + dp_rank * size : start + (dp_rank + 1) * size]
            batch = self.batch_of(mine, width, device)
            yield replace(batch, answers=answers, share=len(ids) // size)

    def batch_of(self, ids: np.ndarray, width: int, device: torch.device) -> Batch:
        """The tensors of some rows; an id of -1 is a row without examples."""
        rows = [self.rows[i] if i >= 0 else () for i in ids]
        shape = (len(rows), width)
        tokens, labels = np.full(shape, self.pad_id, np.int64), np.full(shape, self.pad_id, np.int64)
        positions, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        ends = [0]
        for r, row in enumerate(rows):
            at = 0
            for i in row:
                example = self.examples[i]
                n = len(example) - 1
                tokens[r, at : at + n], labels[r, at : at + n] = example.ids[:-1], example.ids[1:]
                positions[r, at : at + n] = np.arange(n)
                weights[r, at : at + n] = example.answer[1:]
                at += n
                ends.append(r * width + at)
            if at < width:  # the padding is a sequence of its own
                positions[r, at:] = np.arange(width - at)
                ends.append((r + 1) * width)
        arrays = [tokens, labels, positions, weights]
        packed = packed_params(ends, device) if self.packing else None
        if packed is not None:
            arrays = [a.reshape(1, -1) for a in arrays]
        tensors = [devices.moved(torch.from_numpy(a), device) for a in arrays]
        return Batch(*tensors, packed)
