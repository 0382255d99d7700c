"""Which items of a task were in the training data: 13-grams of words that both have (GPT-3, appendix C).

A text is its words in lower case. An item is contaminated when 13 words in a row of one of its texts, or of
its texts one after the other, are in a training document. A text of 5 to 12 words counts as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.manifest import Manifest

N = 13
SHORTEST = 5  # words of a text that is looked for as a whole
DOCUMENTS = "documents.parquet"
WORD = re.compile(r"\w+")
FACTOR = np.uint64(1_099_511_628_211)  # of the rolling hash, FNV's prime


@dataclass
class Words:
    """Numbers for words, the same for the same word: random 64 bits by the order in which they are met."""

    known: dict[str, int] = field(default_factory=dict)
    generator: np.random.Generator = field(default_factory=lambda: np.random.Generator(np.random.PCG64(1)))

    def of(self, text: str) -> np.ndarray:
        """The words of a text as uint64 [n]."""
        found = WORD.findall(text.casefold())
        for word in found:
            if word not in self.known:
                self.known[word] = int(self.generator.integers(1 << 63))
        return np.array([self.known[word] for word in found], np.uint64)


def grams(words: np.ndarray, n: int) -> np.ndarray:
    """Hashes of every n words in a row, uint64 [len - n + 1]."""
    if len(words) < n:
        return np.empty(0, np.uint64)
    total = np.zeros(len(words) - n + 1, np.uint64)
    with np.errstate(over="ignore"):
        for start in range(n):
            total = total * FACTOR + words[start : start + len(total)]
    return total


def texts_of(item: Any) -> Iterator[str]:
    """All texts of an item, in order."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from texts_of(value)
    elif isinstance(item, list | tuple):
        for value in item:
            yield from texts_of(value)


def item_grams(item: Any, words: Words) -> set[tuple[int, int]]:
    """(n, hash) of what is looked for of an item: a training document with any of them holds it."""
    parts = [words.of(text) for text in texts_of(item)]
    parts = [part for part in parts if len(part)]
    if not parts:
        return set()
    whole = np.concatenate(parts)
    long = [part for part in [*parts, whole] if len(part) >= N]
    if long:
        found = {(N, int(one)) for part in long for one in grams(part, N)}
    else:
        found = {(len(whole), int(grams(whole, len(whole))[0]))}
    longest = max(parts, key=len)
    if SHORTEST <= len(longest) < N:
        found.add((len(longest), int(grams(longest, len(longest))[0])))
    return found


def contaminated(
    tasks: Mapping[str, list[Any]], documents: Iterable[tuple[str, str]]
) -> dict[str, dict[int, str]]:
    """{task: {number of a contaminated item: id of the first training document that holds it}}.

    Args:
        tasks: {task: its items}.
        documents: (id, text) of the training documents.
    """
    words = Words()
    owners: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for task, items in tasks.items():
        for number, item in enumerate(items):
            for gram in item_grams(item, words):
                owners.setdefault(gram, []).append((task, number))
    by_length = {
        n: np.unique(np.array([value for length, value in owners if length == n], np.uint64))
        for n in sorted({length for length, _ in owners})
    }
    found: dict[str, dict[int, str]] = {task: {} for task in tasks}
    for identity, text in documents:
        ids = words.of(text)
        for n, wanted in by_length.items():
            for value in np.intersect1d(grams(ids, n), wanted):
                for task, number in owners[n, int(value)]:
                    found[task].setdefault(number, identity)
    return found


def training_documents(manifest: Manifest) -> Iterator[tuple[str, str]] | None:
    """(id, text) of a dataset's training documents; None where its texts are not kept."""
    path = manifest.folder / DOCUMENTS
    return _rows(path) if path.is_file() else None


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = [name for name in ("id", "text", "split") if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=64, columns=columns):
        for row in batch.to_pylist():
            if row.get("split", "train") == "train" and row["text"]:
                yield str(row.get("id", "")), row["text"]


def without(samples: list[Mapping[str, Any]], metric: str, numbers: Iterable[int]) -> float | None:
    """The mean of a metric over the items that are not contaminated; None where it is no mean over items.

    Args:
        samples: lm-eval's record of each item.
        metric: its name in them.
        numbers: of the contaminated ones.
    """
    left_out = set(numbers)
    kept = [sample.get(metric) for number, sample in enumerate(samples) if number not in left_out]
    if not kept or not all(isinstance(value, int | float) for value in kept):
        return None
    return float(sum(kept)) / len(kept)
