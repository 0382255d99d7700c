"""The model an adapter stands on: where it is read from, and how it is told from another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from conf.errors import InputError
from conf.schema.model import ModelConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.hf import names
from elm_megatron.model.sharding import location, sharded_tensors
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.tuning import Source
from elm_megatron.sources.weights import FolderWeights, RunWeights, Weights
from elm_megatron.tune.lora import is_adapter


@dataclass(frozen=True)
class Base:
    """A frozen base model.

    Attributes:
        source: where it lies.
        weights: its tensors, part by part.
        tokenizer: its own.
    """

    source: Source
    weights: Weights
    tokenizer: Tokenizer

    @classmethod
    def open(cls, source: Source) -> Base:
        """Open a source's weights and tokenizer.

        Raises:
            InputError: it holds no verified weights, or no SentencePiece tokenizer.
        """
        if source.is_run:
            run = RunFolder(source.folder)
            weights: Weights = RunWeights(run, source.step)
            tokenizer = tokenizer_files.of_run(run, None)
        else:
            weights, tokenizer = FolderWeights(source.folder), tokenizer_files.of_folder(source.folder)
        return cls(source, weights, tokenizer.load())

    @property
    def model(self) -> ModelConfig:
        """Its sizes."""
        return self.weights.model

    @torch.no_grad()
    def load_into(self, chunks: list[torch.nn.Module]) -> str:
        """Copy this rank's shares of the weights into its model chunks; returns the fingerprint.

        Every rank reads the whole model once, one part at a time.
        """
        wanted = {}
        for chunk in chunks:
            for param, shards in sharded_tensors(chunk):
                for shard in [] if is_adapter(param) else shards:
                    wanted.setdefault(location(shard).name, []).append(shard)
        print_ = hashlib.sha256()
        for part in names.parts(self.model):
            for name, tensor in sorted(self.weights.part(part).items()):
                update_fingerprint(print_, name, tensor)
                for shard in wanted.pop(name, []):
                    where = location(shard)
                    if where.whole != tuple(tensor.shape):
                        raise InputError(
                            f"{self.source.folder}: {name} is {tuple(tensor.shape)}, the run's model wants "
                            f"{where.whole}."
                        )
                    shard.data.view(where.shape).copy_(where.of(tensor))
        if wanted:
            raise InputError(f"{self.source.folder}: holds no {min(wanted)}.")
        return print_.hexdigest()


def fingerprint(weights: Weights) -> str:
    """What tells a model's weights from another's; see `update_fingerprint`."""
    print_ = hashlib.sha256()
    for part in names.parts(weights.model):
        for name, tensor in sorted(weights.part(part).items()):
            update_fingerprint(print_, name, tensor)
    return print_.hexdigest()


def update_fingerprint(print_: Any, name: str, tensor: torch.Tensor) -> None:
    """Add a tensor to a model's fingerprint, a hashlib object: its name and two of its rows, rounded to bf16.

    A run's checkpoint (fp32, padded vocabulary) and its export (perhaps bf16, trimmed) have the same one; two
    models trained from different starts, or on different data, do not.
    """
    rows = tensor[[0, (len(tensor) - 1) // 2]].bfloat16().contiguous()
    print_.update(name.encode())
    print_.update(rows.view(torch.uint8).numpy().tobytes())
