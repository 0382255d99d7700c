"""Perplexity and bits per byte of a model on documents, by language and by source.

Each text is predicted from the end of another (an EOS), as in training, or from the BOS that its tokenizer
puts before texts, in windows that overlap by half, so that every token but the first few sees at least half a
window. Every token counts once; the closing EOS does not. Bits per byte divide by the UTF-8 bytes of the text
and so compare models with different tokenizers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.errors import InputError
from data_prep.manifest import Manifest
from elm_megatron.sources import tokenizer_files

DOCUMENTS = "documents.parquet"


@dataclass(frozen=True)
class Document:
    """One work: its language, its source, its text."""

    language: str
    source: str
    text: str


@dataclass
class Sums:
    """What was added up over a group of documents: nats, tokens, UTF-8 bytes, documents."""

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0
    documents: int = 0

    def add(self, nats: float, tokens: int, size: int) -> None:
        """Add one document."""
        self.nats, self.tokens, self.bytes = self.nats + nats, self.tokens + tokens, self.bytes + size
        self.documents += 1

    def row(self) -> dict[str, Any]:
        """The figures of the group."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "loss": self.nats / self.tokens,
            "perplexity": math.exp(min(self.nats / self.tokens, 700.0)),
            "bits_per_byte": self.nats / math.log(2) / self.bytes,
        }


def documents(manifest: Manifest, split: str, at_most: int | None) -> list[Document]:
    """The works of a split, in the dataset's order.

    Raises:
        InputError: the dataset holds no documents, or none in this split.
    """
    import pyarrow.parquet as pq

    path = manifest.folder / DOCUMENTS
    if not path.is_file():
        raise InputError(f"{path} does not exist: the texts of the dataset are needed for its perplexity.")
    found: list[Document] = []
    columns = ["language", "source", "text", "split"]
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64, columns=columns):
        rows = [row for row in batch.to_pylist() if row["split"] == split and row["text"]]
        found += [Document(row["language"], row["source"], row["text"]) for row in rows]
        if at_most is not None and len(found) >= at_most:
            break
    if not found:
        raise InputError(f"split={split}: {path} holds no document of it.")
    return found[:at_most]


def measure(
    model: torch.nn.Module, folder: Path, first_id: int, works: Iterable[Document], window: int | None
) -> dict[str, dict[str, Any]]:
    """Figures per group: "all", "language nl", "source thesis", …

    Args:
        model: a causal language model of transformers, in eval mode.
        folder: holds its tokenizer.
        first_id: what the first token of a text is predicted from.
        window: tokens a prediction sees at most; None is the model's longest sequence.
    """
    longest = model.config.max_position_embeddings
    size, encode = min(window or longest, longest), tokenizer_files.encoder(folder)
    sums: dict[str, Sums] = defaultdict(Sums)
    for work in works:
        ids = encode(work.text)
        nats = sum(_window_nats(model, seen, first) for seen, first in windows([first_id, *ids], size))
        for group in ("all", f"language {work.language}", f"source {work.source}"):
            sums[group].add(nats, len(ids), len(work.text.encode()))
    return {group: total.row() for group, total in sums.items()}


def windows(ids: list[int], size: int) -> Iterator[tuple[list[int], int]]:
    """Windows of at most `size` ids and, in each, the first position to be counted as a target.

    Together they count every id but the first exactly once.
    """
    counted = 1
    start = 0
    while counted < len(ids):
        end = min(start + size, len(ids))
        yield ids[start:end], counted - start
        counted = end
        start = max(0, min(end, len(ids)) - size // 2)


@torch.inference_mode()
def _window_nats(model: torch.nn.Module, ids: list[int], first: int) -> float:
    """−log p of ids[first:], summed, in nats."""
    inputs = torch.tensor([ids], device=model.device)
    logits = model(inputs).logits[0, first - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits, inputs[0, first:], reduction="sum").item()
