"""Which model is this? A fingerprint that the roundings of an export do not change.

A run's checkpoint (fp32, padded vocabulary) and its exports (fp32, bf16, fp16, trimmed) are the same model.
Two models trained from different starts, on different data or for different steps are not.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from elm_megatron.model import hf_names
from elm_megatron.sources.weights import Weights

# What an export may have done to the weights before the fingerprint rounds them to bf16.
ROUNDINGS = {"": (), "fp16": (torch.float16,), "bf16 fp16": (torch.bfloat16, torch.float16)}


class Fingerprint:
    """Hashes of a model's weights, one per rounding that an export may have done.

    Each is a sha256 over the name and two rows of every tensor, rounded to bf16. Add the parts of a model in
    the order of `hf_names.parts`.
    """

    def __init__(self) -> None:
        self._digests = {name: hashlib.sha256() for name in ROUNDINGS}

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Add a part: Megatron's tensors, whole, any dtype."""
        for name, tensor in sorted(tensors.items()):
            rows = tensor[[0, (len(tensor) - 1) // 2]]
            for rounding, digest in self._digests.items():
                _update(digest, name, rows, ROUNDINGS[rounding])

    @property
    def plain(self) -> str:
        """The hash of the weights as they are."""
        return self._digests[""].hexdigest()

    @property
    def all(self) -> list[str]:
        """The hashes of the weights as they are and as exports round them, without repetitions."""
        return list(dict.fromkeys(digest.hexdigest() for digest in self._digests.values()))


def _update(digest: Any, name: str, rows: torch.Tensor, roundings: tuple[torch.dtype, ...]) -> None:
    for dtype in roundings:
        rows = rows.to(dtype)
    rounded = rows.bfloat16().contiguous()
    digest.update(name.encode())
    digest.update(rounded.view(torch.uint8).numpy().tobytes())


def of_weights(weights: Weights) -> Fingerprint:
    """The fingerprint of a model; reads all of it, one part at a time."""
    found = Fingerprint()
    for part in hf_names.parts(weights.model):
        found.add(weights.part(part))
    return found
