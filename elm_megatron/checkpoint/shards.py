"""The bytes of a checkpoint: boxes of named tensors in safetensors files, readable under any other layout.

A *piece* is a flat range of a *box*, and a box is a rectangle of a whole tensor. Tensor-parallel ranks hold
different boxes, the distributed optimizer's ranks different ranges of one box. Reading assembles any
rectangle from whatever boxes were written. There is no pickle anywhere.
"""

from __future__ import annotations

import hashlib
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

SAFETENSORS_DTYPE = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Place:
    """Where a piece belongs.

    Attributes:
        section: weight, exp_avg or exp_avg_sq.
        name: global name of the tensor, with its layer number.
        whole: shape of the whole tensor.
        offset, shape: the box.
        start, stop: range of the box, flattened row-major.
    """

    section: str
    name: str
    whole: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def key(self) -> str:
        """A name unique within one file."""
        return f"{self.section}/{self.name}/{'_'.join(map(str, self.offset))}/{self.start}"


@dataclass(frozen=True)
class Piece:
    """A place with its numbers, flat [stop - start]."""

    place: Place
    data: torch.Tensor


def split(pieces: list[Piece], parts: int) -> list[list[Piece]]:
    """Pieces in at most `parts` groups of about as many bytes; of no pieces, one empty group."""
    groups: list[list[Piece]] = [[] for _ in range(max(1, min(parts, len(pieces))))]
    sizes = [0] * len(groups)
    for piece in sorted(pieces, key=lambda piece: -piece.data.nbytes):
        lightest = sizes.index(min(sizes))
        groups[lightest].append(piece)
        sizes[lightest] += piece.data.nbytes
    return groups


def write_file(path: Path, pieces: list[Piece]) -> dict[str, Any]:
    """Write pieces as one safetensors file, hashing on the way; fsynced.

    Returns:
        `{"bytes": …, "sha256": …, "places": […]}` for the manifest.
    """
    header, offset = {}, 0
    for piece in pieces:
        size = piece.data.nbytes
        header[piece.place.key] = {
            "dtype": SAFETENSORS_DTYPE[piece.data.dtype],
            "shape": [piece.data.numel()],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with UncachedFile(path) as file:
        for block in (len(text).to_bytes(8, "little"), text, *(_raw(p.data) for p in pieces)):
            file.write(block)
    return {"bytes": file.bytes, "sha256": file.sha256, "places": [vars(p.place) for p in pieces]}


def _raw(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B")


def sha256(path: Path) -> str:
    """Hash of a file, read in blocks."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class Reader:
    """Reads rectangles of whole tensors out of a step folder.

    Args:
        folder: the step folder.
        files: `{file name: {"places": […]}}` of its manifest.
    """

    def __init__(self, folder: Path, files: dict[str, dict[str, Any]]):
        self.folder = folder
        self._open: dict[str, Any] = {}
        self._boxes: dict[tuple[str, str], list[tuple[Place, str]]] = defaultdict(list)
        for name, entry in files.items():
            for raw in entry["places"]:
                place = Place(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
                self._boxes[place.section, place.name].append((place, name))

    def names(self, section: str = "weight") -> list[str]:
        """Names of the whole tensors in a section, sorted."""
        return sorted(name for sect, name in self._boxes if sect == section)

    def shape(self, name: str, section: str = "weight") -> tuple[int, ...]:
        """Shape of a whole tensor.

        Raises:
            InputError: the checkpoint holds no such tensor.
        """
        return self._pieces(section, name)[0][0].whole

    def read(
        self,
        name: str,
        offset: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
        section: str = "weight",
    ) -> torch.Tensor:
        """A rectangle of a whole tensor, contiguous, in the stored dtype; all of it by default.

        Raises:
            InputError: the tensor is missing, or the stored boxes do not cover the rectangle.
        """
        pieces = self._pieces(section, name)
        offset = offset or (0,) * len(pieces[0][0].whole)
        shape = shape or pieces[0][0].whole
        out, filled = None, 0
        for group in _by_box(pieces):
            place = group[0][0]
            low = [max(a, b) for a, b in zip(offset, place.offset, strict=True)]
            high = [
                min(a + n, b + m) for a, n, b, m in zip(offset, shape, place.offset, place.shape, strict=True)
            ]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            source = self._assemble(group).view(place.shape)
            if low == list(offset) and tuple(h - a for h, a in zip(high, low, strict=True)) == tuple(shape):
                return source[_slices(low, high, place.offset)].contiguous()
            if out is None:
                out = torch.empty(shape, dtype=source.dtype)
            out[_slices(low, high, offset)] = source[_slices(low, high, place.offset)]
            filled += int(np.prod([b - a for a, b in zip(low, high, strict=True)]))
        if out is None or filled != out.numel():
            raise InputError(f"{self.folder}: {section} {name} is incomplete.")
        return out

    def _pieces(self, section: str, name: str) -> list[tuple[Place, str]]:
        pieces = self._boxes.get((section, name))
        if not pieces:
            raise InputError(f"{self.folder}: holds no {section} of {name}.")
        return pieces

    def _assemble(self, group: list[tuple[Place, str]]) -> torch.Tensor:
        """All ranges of one box, joined: flat [box elements]."""
        group = sorted(group, key=lambda item: item[0].start)
        parts, at = [], 0
        for place, file in group:
            if place.start != at:
                raise InputError(f"{self.folder}: {place.section} {place.name} lacks elements from {at}.")
            if file not in self._open:
                self._open[file] = safe_open(self.folder / file, framework="pt")
            parts.append(self._open[file].get_tensor(place.key))
            at = place.stop
        if at != int(np.prod(group[0][0].shape)):
            raise InputError(
                f"{self.folder}: {group[0][0].section} {group[0][0].name} lacks elements from {at}."
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_box(pieces: Iterable[tuple[Place, str]]) -> list[list[tuple[Place, str]]]:
    boxes: dict[tuple, list[tuple[Place, str]]] = defaultdict(list)
    for place, file in pieces:
        boxes[place.offset, place.shape].append((place, file))
    return list(boxes.values())


def _slices(low: list[int], high: list[int], origin: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))
