"""Samples for the loop: megatron-core's GPTDataset over one epoch, and which of them each step takes.

One epoch is cut into samples once. Every epoch then visits all of them in its own order, drawn from the seed
and the epoch's number, so a sample's position depends neither on the layout nor on how long the run will be:
`consumed_samples` alone says where to go on. The index of one epoch is small and built in memory by each
rank, so there is no cache on disk that could be stale or half-written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split
from megatron.core.packed_seq_params import PackedSeqParams

from conf.errors import InputError
from conf.schema.data import TrainingData
from conf.schema.train import TrainConfig
from data_prep.manifest import Manifest, TokenizerInfo
from elm_megatron.engine.goldfish import Goldfish
from elm_megatron.engine.packing import document_ends, packed_params
from elm_megatron.model import device as devices
from elm_megatron.model.context_parallel import own_part

DOCUMENTS = "documents.parquet"

# It warns that an index in memory was not saved, which is what is wanted here.
logging.getLogger("megatron.core.datasets.gpt_dataset").setLevel(logging.ERROR)


class _Ids:
    """What GPTDataset asks of a tokenizer: a few ids."""

    def __init__(self, info: TokenizerInfo):
        self.eod = self.eos = self.eos_id = info.eos_id
        self.pad = self.pad_id = info.pad_id
        self.bos = self.bos_id = info.bos_id
        self.vocab_size = info.vocab_size
        self.unique_identifiers = {"sha256": info.sha256}


def open_split(
    manifest: Manifest,
    split: str,
    seq_length: int,
    seed: int,
    options: TrainingData,
    documents: np.ndarray | None = None,
) -> GPTDataset:
    """One epoch of a split as samples of seq_length + 1 tokens.

    Args:
        split: "train" (a last partial sample is dropped) or "valid" (it is padded and masked).
        options: what happens at a document's end.
        documents: indices of the documents to take; all of them by default.

    Raises:
        InputError: the split holds no whole sample.
    """
    prefix = str(manifest.prefix(split))
    if split == "train" and manifest.splits[split].tokens <= seq_length:
        raise InputError(
            f"{prefix}.bin holds {manifest.splits[split].tokens} tokens, fewer than one sequence of "
            f"train.seq_length={seq_length} + 1; give a larger corpus or a shorter train.seq_length."
        )
    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=seq_length,
        blend=([prefix], None),
        split="1",
        path_to_cache="",  # empty, not None: build in memory
        tokenizer=_Ids(manifest.tokenizer),
        reset_position_ids=False,  # rotary positions are relative: they begin anew where attention does
        reset_attention_mask=options.reset_attention_mask,
        eod_mask_loss=options.eod_mask_loss,
        create_attention_mask=False,
        drop_last_partial_validation_sequence=False,
    )
    indexed = IndexedDataset(prefix, multimodal=False, mmap=True)
    if documents is None:
        documents = np.arange(indexed.sequence_lengths.shape[0])
    documents = documents.astype(np.int32)
    dataset = GPTDataset(indexed, prefix, documents, None, Split[split], config)
    if split == "valid":
        # The mask that megatron-core keeps for all samples is that of the first one asked for, which may be
        # the last one, padded.
        dataset.masks_and_position_ids_are_cacheable = False
    return dataset


def open_validation(
    manifest: Manifest, seq_length: int, seed: int, options: TrainingData
) -> dict[str, GPTDataset]:
    """The validation split, one dataset per language; one named "" where the languages are not known."""
    groups: dict[str, list[int]] = {}
    for index, language in enumerate(_languages(manifest)):
        groups.setdefault(language, []).append(index)
    if not groups:
        return {"": open_split(manifest, "valid", seq_length, seed, options)}
    return {
        language: open_split(manifest, "valid", seq_length, seed, options, np.array(indices))
        for language, indices in sorted(groups.items())
    }


def _languages(manifest: Manifest) -> list[str]:
    """The language of every validation document, in the order of the index; [] when it is not recorded."""
    if DOCUMENTS not in manifest.files:
        return []
    import pyarrow.parquet as pq

    table = pq.read_table(manifest.folder / DOCUMENTS, columns=["split", "language"])
    rows = zip(table["split"].to_pylist(), table["language"].to_pylist(), strict=True)
    found = [language for split, language in rows if split != "train"]
    return found if len(found) == manifest.splits["valid"].documents else []


def sample_counts(tokens: int, seq_length: int) -> int:
    """Whole samples in one epoch of `tokens` tokens; the first sample needs one token more than the rest."""
    return max(0, (tokens - 1) // seq_length)


def steps_of_epochs(tokens: int, train: TrainConfig) -> tuple[int, int]:
    """Whole steps in `train.epochs` of `tokens` tokens; the samples of the last partial batch, dropped.

    Raises:
        InputError: they are not one.
    """
    samples = int((train.epochs or 0) * sample_counts(tokens, train.seq_length))
    steps, dropped = train.steps_within(samples)
    if steps == 0:
        raise InputError(
            f"train.epochs={train.epochs:g} are {samples} samples of {train.seq_length} tokens, fewer than "
            f"one batch of train.global_batch_size={train.batch_size(0)}; give a larger corpus, more epochs "
            "or a smaller batch."
        )
    return steps, dropped


@lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)


def sample_ids(consumed: int, count: int, samples: int, seed: int) -> np.ndarray:
    """Ids of the next `count` samples after `consumed`, int64 [count]; epochs follow without a gap."""
    positions = np.arange(consumed, consumed + count)
    epochs, offsets = np.divmod(positions, samples)
    ids = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        ids[chosen] = _permutation(seed, int(epoch), samples)[offsets[chosen]]
    return ids


@dataclass(frozen=True)
class Batch:
    """One micro-batch on the device.

    Attributes:
        tokens, labels, position_ids: int64 [b, s], of s this rank's part under context parallelism.
        loss_mask: fp32 [b, s].
        packed: where documents end, when they are kept apart; then all rows are one behind the other, b is 1.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    loss_mask: torch.Tensor
    packed: PackedSeqParams | None = None


def micro_batches(
    dataset: Any,
    ids: np.ndarray,
    micro_batch_size: int,
    dp_rank: int,
    dp: int,
    device: torch.device,
    keep_apart: int | None = None,
    goldfish: Goldfish | None = None,
) -> Iterator[Batch]:
    """This rank's micro-batches of one global batch.

    Args:
        ids: sample ids of the global batch, -1 for a place to be filled with a masked sample; their number
            is a multiple of micro_batch_size · dp.
        keep_apart: the EOS at which one document ends and another begins that may not see it; None is off.
        goldfish: which tokens are left out of the loss; None is none.
    """
    unit = micro_batch_size * dp
    for start in range(0, len(ids), unit):
        mine = ids[start + dp_rank * micro_batch_size : start + (dp_rank + 1) * micro_batch_size]
        rows = [dataset[None if i < 0 else int(i)] for i in mine]
        names = ("tokens", "labels", "position_ids", "loss_mask")
        tensors = {name: torch.stack([row[name] for row in rows]) for name in names}
        if goldfish is not None:
            tensors["loss_mask"] *= torch.from_numpy(goldfish.kept(tensors["tokens"].numpy()))
        packed = None
        if keep_apart is not None:
            packed = packed_params(document_ends(tensors["tokens"], keep_apart), device)
            tensors = {name: tensor.view(1, -1) for name, tensor in tensors.items()}
        tensors = {name: devices.moved(own_part(tensor), device) for name, tensor in tensors.items()}
        yield Batch(**tensors, packed=packed)


def padded(ids: np.ndarray, unit: int) -> np.ndarray:
    """Ids filled with -1 up to a multiple of `unit`; validation walks over them."""
    filled = np.full(-(-len(ids) // unit) * unit, -1, dtype=np.int64)
    filled[: len(ids)] = ids
    return filled


def targets(dataset: GPTDataset, skips_ends: bool) -> int:
    """Tokens of a validation dataset that a loss is taken of.

    Args:
        skips_ends: the token that follows a document's end is left out (`data.eod_mask_loss`).
    """
    documents = len(dataset.indices)
    tokens = int(dataset.dataset.sequence_lengths[dataset.indices].sum())
    return tokens - 1 - (documents - 1 if skips_ends else 0)
