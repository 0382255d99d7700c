"""One shard of an index: its suffixes in order, and what of an answer is in its text.

Suffixes are compared by the bytes of their ids as the `.bin` has them. The order of the tokens has no
meaning, but it is the same in sorting and in searching.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path

import numpy as np

from conf.errors import InputError

ORDER_DTYPE = np.dtype("<u4")
SHARD_BYTES = 64 << 20  # of ids; sorting takes some 8 bytes for each of them
CHUNK = 1 << 22  # entries written at a time
ROWS = 4096  # positions of an answer that are searched at a time
BEHIND_ANSWER, BEHIND_TEXT = -1, -2  # stand for tokens where there are none
EXTRA = "pip install -c constraints.txt -e .[trace]"


def sort(ids: np.ndarray, path: Path) -> None:
    """Write the positions of all suffixes of `ids` in order, uint32.

    Raises:
        InputError: pydivsufsort is not installed.
    """
    try:
        from pydivsufsort import divsufsort
    except ImportError as error:
        raise InputError(f"trace_answer needs pydivsufsort, which is not installed: {EXTRA}.") from error
    size = ids.dtype.itemsize
    order = divsufsort(np.array(ids).view(np.uint8))  # positions of bytes; those inside a token are left out
    with path.open("wb") as file:
        for start in range(0, len(order), CHUNK):
            part = order[start : start + CHUNK]
            file.write((part[part % size == 0] // size).astype(ORDER_DTYPE).tobytes())


class Suffixes:
    """The sorted suffixes of a run of whole documents.

    Args:
        ids: the whole `.bin`.
        first: where the shard's text begins in it.
        tokens: of the shard.
        order: positions in the shard, uint32; those of works that are gone are not among them.
    """

    def __init__(self, ids: np.ndarray, first: int, tokens: int, order: np.ndarray):
        self.first, self.order = first, order
        self._ids = ids[first : first + tokens]
        self._size = ids.dtype.itemsize
        self._bytes = memoryview(self._ids).cast("B")

    def longest(self, answer: np.ndarray, width: int) -> np.ndarray:
        """How many tokens from each position of an answer are in the text one behind the other, int64 [n].

        Args:
            answer: ids, of the text's type.
            width: tokens that are compared for all positions at once; what is longer is measured by itself.
        """
        if not len(answer) or not len(self.order):
            return np.zeros(len(answer), np.int64)
        rows = (np.arange(start, min(start + ROWS, len(answer))) for start in range(0, len(answer), ROWS))
        return np.concatenate([self._longest_from(answer, starts, width) for starts in rows])

    def _longest_from(self, answer: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
        wanted = _windows(answer, starts, width, BEHIND_ANSWER)
        low = self._lower_bound(wanted)
        found = np.zeros(len(starts), np.int64)
        for place in (low - 1, low):
            near = self._beginnings(place.clip(0, len(self.order) - 1), width)
            np.maximum(found, (near == wanted).cumprod(axis=1).sum(axis=1), out=found)
        for row in np.flatnonzero(found == width):
            found[row] = self._longest(answer[starts[row] :].tobytes(), int(low[row]))
        return found

    def places(self, passage: np.ndarray) -> np.ndarray:
        """Where a passage is in the whole `.bin`, int64, in no order."""
        wanted = passage.tobytes()

        def key(place: np.integer) -> bytes:
            return self._text(place, len(wanted))

        low = bisect_left(self.order, wanted, key=key)
        high = bisect_right(self.order, wanted, lo=low, key=key)
        return self.order[low:high].astype(np.int64) + self.first

    def _lower_bound(self, wanted: np.ndarray) -> np.ndarray:
        """For each row the first suffix that is not before it, int64; a binary search of all rows at once."""
        low = np.zeros(len(wanted), np.int64)
        high = np.full(len(wanted), len(self.order), np.int64)
        while (open_rows := np.flatnonzero(low < high)).size:
            middle = (low[open_rows] + high[open_rows]) // 2
            before = _is_before(self._beginnings(middle, wanted.shape[1]), wanted[open_rows])
            low[open_rows[before]] = middle[before] + 1
            high[open_rows[~before]] = middle[~before]
        return low

    def _beginnings(self, places: np.ndarray, width: int) -> np.ndarray:
        """The first tokens of the suffixes at some places of the order, int64 [places, width]."""
        return _windows(self._ids, self.order[places].astype(np.int64), width, BEHIND_TEXT)

    def _longest(self, wanted: bytes, low: int) -> int:
        """Tokens at the beginning of `wanted` that are in the text; `low` is not behind its place."""
        place = bisect_left(self.order, wanted, lo=low, key=lambda at: self._text(at, len(wanted)))
        near = self.order[max(0, place - 1) : place + 1]
        return max(_common(self._text(at, len(wanted)), wanted) for at in near) // self._size

    def _text(self, position: np.integer, length: int) -> bytes:
        start = int(position) * self._size
        return bytes(self._bytes[start : start + length])


def _windows(ids: np.ndarray, starts: np.ndarray, width: int, missing: int) -> np.ndarray:
    """Tokens from each start on as numbers in the order of their bytes, int64 [starts, width].

    Args:
        missing: what is behind the end.
    """
    places = starts[:, None] + np.arange(width)
    tokens = ids[np.minimum(places, len(ids) - 1)]
    numbers = tokens.view(f"u{tokens.itemsize}").byteswap().astype(np.int64)
    numbers[places >= len(ids)] = missing
    return numbers


def _is_before(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each row comes before another in lexicographic order, bool [n]; both int64 [n, width]."""
    first = (rows != others).argmax(axis=1)
    each = np.arange(len(rows))
    return rows[each, first] < others[each, first]


def _common(text: bytes, other: bytes) -> int:
    """Bytes that both begin with."""
    length = min(len(text), len(other))
    different = np.frombuffer(text, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(different.argmax()) if different.any() else length
