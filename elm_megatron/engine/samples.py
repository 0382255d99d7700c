"""The samples of a run and their order: one dataset, or a blend of several by weight.

Which sample stands at which place of the run is a function of the seed, the weights and the place alone, so
a run goes on from `consumed_samples` under any layout. A blend interleaves its parts as Megatron does: each
place goes to the part that is furthest behind its share. That pattern is laid out once for a million places
and then repeats, so that no place needs those before it. Within a part the epochs follow each other, each in
an order of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from megatron.core.datasets import helpers
from megatron.core.datasets.gpt_dataset import GPTDataset

from conf.errors import InputError
from conf.schema.data import TrainingData
from data_prep.dataset import open_parts
from data_prep.manifest import Manifest
from elm_megatron.engine.data import open_split, sample_ids

PERIOD = 1 << 20


class Samples:
    """Training samples by id: those of the first part, then those of the second, ….

    Args:
        parts: the datasets, one epoch of each.
        weights: one per part; only their ratio counts.
        seed: of the order within each part.
        manifests: one per part.

    Raises:
        InputError: a weight is too small a share of all.
    """

    def __init__(self, parts: list[GPTDataset], weights: list[float], seed: int, manifests: list[Manifest]):
        self.parts, self.manifests, self._seed = parts, manifests, seed
        self.shares = np.array(weights, np.float64) / sum(weights)
        for i in np.flatnonzero(self.shares * PERIOD < 1):  # it would be drawn more often than it asks for
            raise InputError(f"data.blend[{i}].weight={weights[i]:g}: is a share below 1 in {PERIOD}.")
        self.first_ids = np.cumsum([0, *(len(part) for part in parts)])
        self._part_of, self._turn_of = interleaved(self.shares)
        self._in_period = np.bincount(self._part_of, minlength=len(parts))

    @classmethod
    def open(cls, data: TrainingData, manifest: Manifest, seq_length: int, seed: int) -> Samples:
        """The training samples `data` names; `manifest` is that of `data.dir`."""
        manifests = open_parts(data, manifest, seq_length)
        parts = [open_split(part, "train", seq_length, seed, data) for part in manifests]
        return cls(parts, [part.weight for part in data.blend] or [1.0], seed, manifests)

    def __len__(self) -> int:
        return int(self.first_ids[-1])

    def __getitem__(self, index: int | None) -> dict[str, torch.Tensor]:
        """One sample as GPTDataset gives it; None is a masked one."""
        if index is None:
            return self.parts[0][None]
        part = int(self.part_of(index))
        return self.parts[part][int(index - self.first_ids[part])]

    def part_of(self, ids: Any) -> np.ndarray:
        """Which part samples belong to."""
        return np.searchsorted(self.first_ids, ids, side="right") - 1

    def ids(self, consumed: int, count: int) -> np.ndarray:
        """Ids of the next `count` samples after `consumed`, int64 [count]."""
        periods, places = np.divmod(np.arange(consumed, consumed + count), len(self._part_of))
        parts = self._part_of[places].astype(np.int64)
        # How often the part was drawn before.
        turns = periods * self._in_period[parts] + self._turn_of[places]
        ids = np.empty(count, np.int64)
        for part in np.unique(parts):
            mine = parts == part
            first, n = int(turns[mine][0]), int(mine.sum())  # a part's turns follow each other
            ids[mine] = self.first_ids[part] + sample_ids(first, n, len(self.parts[part]), self._seed)
        return ids

    def drawn(self, consumed: int) -> list[int]:
        """Samples of each part among the first `consumed` of the run."""
        periods, places = divmod(consumed, len(self._part_of))
        rest = np.bincount(self._part_of[:places], minlength=len(self.parts))
        return (periods * self._in_period + rest).tolist()

    def facts(self, consumed: int) -> list[dict[str, Any]]:
        """What run.json tells of the parts; the ids of a part begin at its `first_id`."""
        drawn = self.drawn(consumed)
        return [
            {
                "dir": str(manifest.folder),
                "manifest_sha256": manifest.sha256,
                "share": float(self.shares[i]),
                "samples": len(self.parts[i]),
                "first_id": int(self.first_ids[i]),
                "drawn": drawn[i],
                "epochs": drawn[i] / len(self.parts[i]),
            }
            for i, manifest in enumerate(self.manifests)
        ]


def interleaved(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who has each place of a period: (part, int16, and how many places the part had before, int64).

    Megatron's rule: the place goes to the part whose share of the places so far exceeds its count the most.
    """
    size = PERIOD if len(shares) > 1 else 1
    parts, turns = np.zeros(size, np.int16), np.zeros(size, np.int64)
    helpers.build_blending_indices(parts, turns, shares, len(shares), size, False)
    return parts, turns
