"""The base model of a tuning run: loading it into this rank's layers, and its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from conf.errors import InputError
from conf.schema.model import ModelConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.model import hf_names
from elm_megatron.model.sharding import location, sharded_tensors
from elm_megatron.sources import adapters
from elm_megatron.sources.fingerprint import Fingerprint
from elm_megatron.sources.source import ModelSource
from elm_megatron.sources.weights import Weights


@dataclass(frozen=True)
class Base:
    """A frozen base model.

    Attributes:
        source: where it is.
        weights: its tensors, part by part.
        tokenizer: its own.
    """

    source: ModelSource
    weights: Weights
    tokenizer: Tokenizer

    @classmethod
    def open(cls, source: ModelSource) -> Base:
        """Open the weights and the tokenizer of a source, for a finetune run those of its base.

        Raises:
            InputError: it holds no verified weights, or no SentencePiece tokenizer.
        """
        stored = source.stored
        return cls(stored, stored.weights, stored.tokenizer.load())

    @property
    def model(self) -> ModelConfig:
        """Its sizes."""
        return self.weights.model

    @torch.no_grad()
    def load_into(self, chunks: list[torch.nn.Module]) -> Fingerprint:
        """Copy this rank's shards of the weights into its model chunks; returns the fingerprint.

        Every rank reads the whole model once, one part at a time. Adapters in the chunks stay.

        Raises:
            InputError: the chunks have a tensor that the weights lack, or in another shape.
        """
        wanted = self._shards(chunks)
        fingerprint = Fingerprint()
        for part in hf_names.parts(self.model):
            tensors = self.weights.part(part)
            fingerprint.add(tensors)
            for name, tensor in tensors.items():
                for shard in wanted.pop(name, []):
                    where = location(shard)
                    if where.whole != tuple(tensor.shape):
                        raise InputError(
                            f"{self.source.folder}: {name} is {tuple(tensor.shape)}, the run's model wants "
                            f"{where.whole}."
                        )
                    shard.data.view(where.shape).copy_(where.of(tensor))
        if wanted:
            raise InputError(f"{self.source.folder}: holds no {min(wanted)}, which the run's model has.")
        return fingerprint

    @staticmethod
    def _shards(chunks: list[torch.nn.Module]) -> dict[str, list]:
        """{tensor: this rank's shards of it} of the model's own tensors, adapters left out."""
        found: dict[str, list] = {}
        for chunk in chunks:
            for _, shards in sharded_tensors(chunk):
                for shard in shards:
                    name = location(shard).name
                    if not adapters.is_matrix(name):
                        found.setdefault(name, []).append(shard)
        return found
