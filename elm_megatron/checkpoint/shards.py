"""The bytes of a checkpoint: shards of named tensors in safetensors files, readable under any other layout.

A shard is a rectangle of a whole tensor. Tensor-parallel ranks have different shards, the distributed
optimizer's ranks different ranges of one shard. The reader assembles any rectangle from the ranges that were
written. There is no pickle anywhere.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from conf.errors import InputError
from elm_megatron.checkpoint.uncached import UncachedFile
from elm_megatron.model.sharding import ShardLocation

SAFETENSORS_DTYPE = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class ShardRange:
    """Which numbers of a model or its optimizer: a range of a shard.

    Attributes:
        section: weight, exp_avg or exp_avg_sq.
        location: of the shard.
        start, stop: range of the shard's elements, flattened row-major.
    """

    section: str
    location: ShardLocation
    start: int
    stop: int

    @property
    def key(self) -> str:
        """A name unique within one file."""
        return f"{self.section}/{self.location.name}/{'_'.join(map(str, self.location.offset))}/{self.start}"

    def entry(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {"section": self.section, **self.location._asdict(), "start": self.start, "stop": self.stop}

    @classmethod
    def of_entry(cls, entry: dict[str, Any]) -> ShardRange:
        """Read an entry of a manifest."""
        whole, offset, shape = (tuple(entry[key]) for key in ("whole", "offset", "shape"))
        location = ShardLocation(entry["name"], whole, offset, shape)
        return cls(entry["section"], location, entry["start"], entry["stop"])


@dataclass(frozen=True)
class Shard:
    """A range with its numbers, flat [stop - start]."""

    range: ShardRange
    data: torch.Tensor

    @classmethod
    def whole(cls, name: str, tensor: torch.Tensor, section: str = "weight") -> Shard:
        """A tensor that is not cut, stored in fp32."""
        shape = tuple(tensor.shape)
        location = ShardLocation(name, shape, (0,) * len(shape), shape)
        data = tensor.to(torch.float32).contiguous().view(-1)
        return cls(ShardRange(section, location, 0, tensor.numel()), data)


def split(shards: list[Shard], parts: int) -> list[list[Shard]]:
    """Shards in at most `parts` groups of about as many bytes; of no shards, one empty group."""
    groups: list[list[Shard]] = [[] for _ in range(max(1, min(parts, len(shards))))]
    sizes = [0] * len(groups)
    for shard in sorted(shards, key=lambda shard: -shard.data.nbytes):
        lightest = sizes.index(min(sizes))
        groups[lightest].append(shard)
        sizes[lightest] += shard.data.nbytes
    return groups


def write_file(path: Path, shards: list[Shard]) -> dict[str, Any]:
    """Write shards as one safetensors file, hashing on the way; fsynced.

    Returns:
        `{"bytes": …, "sha256": …, "places": […]}` for the manifest.

    Raises:
        OSError: the file system refused a write; the file is not whole.
    """
    header, offset = {}, 0
    for shard in shards:
        size = shard.data.nbytes
        header[shard.range.key] = {
            "dtype": SAFETENSORS_DTYPE[shard.data.dtype],
            "shape": [shard.data.numel()],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with UncachedFile(path) as file:
        for block in (len(text).to_bytes(8, "little"), text, *(_raw(shard.data) for shard in shards)):
            file.write(block)
    return {
        "bytes": file.bytes,
        "sha256": file.sha256,
        "places": [shard.range.entry() for shard in shards],
    }


def _raw(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B")


class Reader:
    """Reads rectangles of whole tensors out of a step folder.

    Args:
        folder: the step folder.
        files: `{file name: {"places": […]}}` of its manifest.
    """

    def __init__(self, folder: Path, files: dict[str, dict[str, Any]]):
        self.folder = folder
        self._open: dict[str, Any] = {}
        self._ranges: dict[tuple[str, str], list[tuple[ShardRange, str]]] = defaultdict(list)
        for file, entry in files.items():
            for stored in map(ShardRange.of_entry, entry["places"]):
                self._ranges[stored.section, stored.location.name].append((stored, file))

    def names(self, section: str = "weight") -> list[str]:
        """Names of the whole tensors in a section, sorted."""
        return sorted(name for found, name in self._ranges if found == section)

    def shape(self, name: str, section: str = "weight") -> tuple[int, ...]:
        """Shape of a whole tensor.

        Raises:
            InputError: the checkpoint holds no such tensor.
        """
        return self._stored(section, name)[0][0].location.whole

    def read(
        self,
        name: str,
        offset: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
        section: str = "weight",
    ) -> torch.Tensor:
        """A rectangle of a whole tensor, contiguous, in the stored dtype; all of it by default.

        Raises:
            InputError: the tensor is missing, or the stored ranges do not cover the rectangle.
        """
        stored = self._stored(section, name)
        whole = stored[0][0].location.whole
        offset, shape = offset or (0,) * len(whole), shape or whole
        out, filled = None, 0
        for group in _by_shard(stored):
            shard = group[0][0].location
            low = [max(a, b) for a, b in zip(offset, shard.offset, strict=True)]
            high = [
                min(a + n, b + m) for a, n, b, m in zip(offset, shape, shard.offset, shard.shape, strict=True)
            ]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            source = self._assemble(group).view(shard.shape)
            if low == list(offset) and tuple(h - a for h, a in zip(high, low, strict=True)) == tuple(shape):
                return source[_slices(low, high, shard.offset)].contiguous()
            if out is None:
                out = torch.empty(shape, dtype=source.dtype)
            out[_slices(low, high, offset)] = source[_slices(low, high, shard.offset)]
            filled += int(np.prod([b - a for a, b in zip(low, high, strict=True)]))
        if out is None or filled != out.numel():
            raise InputError(f"{self.folder}: {section} {name} is incomplete.")
        return out

    def _stored(self, section: str, name: str) -> list[tuple[ShardRange, str]]:
        stored = self._ranges.get((section, name))
        if not stored:
            raise InputError(f"{self.folder}: holds no {section} of {name}.")
        return stored

    def _assemble(self, group: list[tuple[ShardRange, str]]) -> torch.Tensor:
        """All ranges of one shard, joined: flat [shard elements]."""
        group = sorted(group, key=lambda item: item[0].start)
        first, parts, at = group[0][0], [], 0
        lacks = f"{self.folder}: {first.section} {first.location.name} lacks elements from"
        for stored, file in group:
            if stored.start != at:
                raise InputError(f"{lacks} {at}.")
            if file not in self._open:
                self._open[file] = safe_open(self.folder / file, framework="pt")
            parts.append(self._open[file].get_tensor(stored.key))
            at = stored.stop
        if at != int(np.prod(first.location.shape)):
            raise InputError(f"{lacks} {at}.")
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_shard(stored: Iterable[tuple[ShardRange, str]]) -> list[list[tuple[ShardRange, str]]]:
    shards: dict[ShardLocation, list[tuple[ShardRange, str]]] = defaultdict(list)
    for item in stored:
        shards[item[0].location].append(item)
    return list(shards.values())


def _slices(low: list[int], high: list[int], origin: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))
