"""Writes safetensors files tensor by tensor, never holding more than one, and their index."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from conf.schema.model import ModelConfig
from elm_megatron.model import hf_names
from elm_megatron.sources.weights import INDEX_FILE, SINGLE_FILE

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAFETENSORS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
BLOCK = 1 << 24


class SafetensorsWriter:
    """The weights of one Hugging Face folder, written in the order of `hf_names.hf_shapes`.

    Args:
        folder: where; it exists.
        model: gives the names and shapes, so that headers are written first.
        dtype: fp32, bf16 or fp16.
        shard_bytes: largest file, unless one tensor alone is larger.
    """

    def __init__(self, folder: Path, model: ModelConfig, dtype: str, shard_bytes: int):
        self.folder, self.dtype = folder, dtype
        self.files: dict[str, dict[str, Any]] = {}
        self._shards = _plan(model, DTYPES[dtype].itemsize, shard_bytes)
        self._queue = [
            (file, name, shape) for file, shapes in self._shards.items() for name, shape in shapes.items()
        ]
        self._file: BinaryIO | None = None
        self._name, self._digest, self._bytes = "", hashlib.sha256(), 0

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write the next tensor, rounded to the folder's dtype."""
        file, expected, shape = self._queue.pop(0)
        if (name, tuple(tensor.shape)) != (expected, shape):
            raise ValueError(f"{name} {tuple(tensor.shape)} came where {expected} {shape} was planned")
        if file != self._name:
            self._close()
            self._open(file)
        raw = tensor.detach().to(DTYPES[self.dtype]).contiguous().view(-1).view(torch.uint8).numpy()
        view = memoryview(raw)
        for start in range(0, len(view), BLOCK):
            self._put(view[start : start + BLOCK])

    def finish(self) -> None:
        """Close the last file and write the index where there are several."""
        if self._queue:
            raise ValueError(f"{self._queue[0][1]} was never written")
        self._close()
        if len(self._shards) > 1:
            total = sum(_size(shape) for shapes in self._shards.values() for shape in shapes.values())
            index = {
                "metadata": {"total_size": total * DTYPES[self.dtype].itemsize},
                "weight_map": {name: file for file, shapes in self._shards.items() for name in shapes},
            }
            (self.folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _open(self, file: str) -> None:
        self._name, self._digest, self._bytes = file, hashlib.sha256(), 0
        self._file = (self.folder / file).open("wb")
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, shape in self._shards[file].items():
            end = offset + _size(shape) * DTYPES[self.dtype].itemsize
            header[name] = {
                "dtype": SAFETENSORS[self.dtype], "shape": list(shape), "data_offsets": [offset, end]
            }  # fmt: skip
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._put(len(text).to_bytes(8, "little") + text)

    def _put(self, block: bytes | memoryview) -> None:
        assert self._file is not None
        self._digest.update(block)
        self._file.write(block)
        self._bytes += len(block)

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self.files[self._name] = {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _plan(model: ModelConfig, itemsize: int, shard_bytes: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """{file: {tensor: shape}}: consecutive tensors up to shard_bytes a file."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for part in hf_names.parts(model):
        for name, shape in hf_names.hf_shapes(model, part).items():
            size = _size(shape) * itemsize
            if shards[-1] and filled + size > shard_bytes:
                shards.append({})
                filled = 0
            shards[-1][name] = shape
            filled += size
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    count = len(shards)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": shard for i, shard in enumerate(shards, 1)}
