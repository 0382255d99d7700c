"""Traces answers: the passages of a text that are in training works, with those works.

    tracer = opened(datasets_of("pretrain-small-eur"))
    traced = tracer.trace("The answer of a model …")
    traced.spans[0].works[0].id

A text is encoded by the tokenizer of the dataset, whichever model wrote it. Tuning data is not traced.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.manifest import FILE as MANIFEST
from data_prep.tombstones import FILE as TOMBSTONES
from elm_megatron.trace.datasets import Traced, datasets_of
from elm_megatron.trace.index import DOCUMENTS, FILE, Index, Outdated, Work

LEAST = 8  # tokens of a passage


@dataclass(frozen=True)
class Span:
    """A passage of a text that is in training works.

    Attributes:
        start, stop: in characters.
        tokens: of the dataset's tokenizer.
        times: how often it is in the training works.
        works: that hold it, in the dataset's order.
        dataset: the dataset's name.
    """

    start: int
    stop: int
    tokens: int
    times: int
    works: tuple[Work, ...]
    dataset: str


@dataclass(frozen=True)
class Trace:
    """A text and its passages, by their start.

    Attributes:
        tokens: of the whole text, by the first dataset's tokenizer.
    """

    text: str
    tokens: int
    spans: tuple[Span, ...]

    @property
    def covered(self) -> int:
        """Characters that are in a passage."""
        return sum(stop - start for start, stop, numbers in self.pieces() if numbers)

    def pieces(self) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """The text cut where passages begin and end: (start, stop, numbers of the passages, from 0)."""
        cuts = sorted({0, len(self.text), *(cut for one in self.spans for cut in (one.start, one.stop))})
        begun, inside = 0, []
        for start, stop in itertools.pairwise(cuts):
            while begun < len(self.spans) and self.spans[begun].start <= start:
                inside.append(begun)
                begun += 1
            inside = [number for number in inside if self.spans[number].stop > start]
            yield start, stop, tuple(inside)

    def as_json(self, works: int | None = None) -> dict[str, Any]:
        """The trace as plain containers.

        Args:
            works: how many works of a passage are listed at most; all by default.
        """
        spans = [
            {
                **asdict(replace(span, works=span.works[:works])),
                "text": self.text[span.start : span.stop],
                "works_found": len(span.works),
            }
            for span in self.spans
        ]
        return {"text": self.text, "tokens": self.tokens, "characters_covered": self.covered, "spans": spans}


class Tracer:
    """Opened indexes of a model's datasets."""

    def __init__(self, indexes: Sequence[Index]):
        self.indexes = tuple(indexes)
        self._tokenizers = [index.tokenizer() for index in self.indexes]

    def trace(self, text: str, least: int = LEAST) -> Trace:
        """The passages of at least so many tokens.

        Args:
            text: any; half characters (lone surrogates) are replaced.
        """
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        spans: list[Span] = []
        counts = []
        for index, tokenizer in zip(self.indexes, self._tokenizers, strict=True):
            ids, offsets = tokenizer.encode_with_offsets(text)
            answer = np.array(ids, np.int64)
            counts.append(len(ids))
            for first, last in index.spans(answer, least):
                # The tokenizer puts a space before a text. Works that have the passage behind a line break
                # have another first token.
                inner = 1 if first == 0 and last > least else first
                works, times = index.works_of(answer[inner:last])
                start, stop = offsets[first][0], offsets[last - 1][1]
                name = index.manifest.corpus
                spans.append(Span(start, stop, last - first, times, tuple(works), name))
        spans.sort(key=lambda span: (span.start, -span.stop))
        return Trace(text, counts[0] if counts else 0, tuple(spans))


class Tracers:
    """Tracers that stay open between requests, one a source; what changes on the disk is opened again."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[tuple[Any, ...], Tracer]] = {}

    def trace(self, source: str, text: str) -> Trace:
        """The passages of an answer that are in the training works of a source.

        Raises:
            Outdated: there is no index, or it is not up to date.
            InputError: the source or its dataset cannot be read.
        """
        datasets = datasets_of(source)
        state = tuple(_state(path) for one in datasets for path in _watched(one))
        known = self._opened.get(source)
        if known is None or known[0] != state:
            known = self._opened[source] = (state, opened(datasets))
        return known[1].trace(text)


def _watched(one: Traced) -> Iterator[Path]:
    """The files that decide about an opened index."""
    yield from (one.manifest.folder / name for name in (MANIFEST, DOCUMENTS, TOMBSTONES))
    yield from (place / FILE for place in one.places)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def opened(datasets: Sequence[Traced]) -> Tracer:
    """The tracer of a model's datasets, from the indexes that exist.

    Raises:
        Outdated: there is no index of one of them, or it is not up to date.
        InputError: a dataset or its tokenizer cannot be read.
    """
    return Tracer([found_index(one) for one in datasets])


def found_index(one: Traced) -> Index:
    """The index of a dataset.

    Raises:
        Outdated: there is none, or it has works that are gone.
    """
    reason = Outdated(f"{one.manifest.folder}: has no index yet.")
    for place in one.places:
        if not place.is_dir():
            continue
        try:
            index = Index.open(place, one.manifest)
        except Outdated as error:
            reason = error
            continue
        if index.is_current:
            return index
        reason = Outdated(f"{place}: has works that were taken down.")
    raise reason
