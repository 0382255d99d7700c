"""A hash table of short byte strings in numpy: thousands of look-ups at once, compared exactly.

Keys are strings of at most 8·W bytes, zero-padded to W little-endian u64 words. Open addressing with linear
probing; the place is a multiply-xor hash, but a hit is an equality of all words, so that no two strings are
ever taken for each other.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio (Knuth's multiplicative hashing)
MASKS = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)


class WordTable:
    """Strings of at most ``8 * words`` bytes, none empty and none starting with a NUL, to (start, count)."""

    def __init__(self, words: int, bits: int) -> None:
        """Room for 0.6 · 2^bits strings; (8 · words + 8) · 2^bits bytes of memory."""
        self.words, self.size = words, 1 << bits
        self.capacity = int(0.6 * self.size)
        self._shift = np.uint64(64 - bits)
        self._keys = [np.zeros(self.size, np.uint64) for _ in range(words)]
        self.start = np.zeros(self.size, np.int32)
        self.count = np.zeros(self.size, np.int32)
        self.used = 0

    def clear(self) -> None:
        """Forget everything."""
        self._keys[0][:] = 0
        self.used = 0

    def load(self, windows: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Keys of the strings at `starts` with `lengths` bytes.

        Args:
            windows: u64 of the eight bytes from each place of the text on.
            starts: int64[N].
            lengths: int64[N].

        Returns:
            `words` arrays u64[N].
        """
        return [
            windows[starts + 8 * word] & MASKS[np.clip(lengths - 8 * word, 0, 8)]
            for word in range(self.words)
        ]

    def find(self, keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Look strings up.

        Returns:
            The place of each (of no meaning for the missing), and the numbers of the missing ones.
        """
        places = self._hash(keys)
        todo = np.flatnonzero(~self._equal(places, keys, slice(None)))
        missing = [np.zeros(0, np.int64)]
        while len(todo):
            empty = self._keys[0][places[todo]] == 0
            missing.append(todo[empty])
            todo = todo[~empty]
            places[todo] = (places[todo] + 1) & (self.size - 1)
            todo = todo[~self._equal(places[todo], keys, todo)]
        return places, np.concatenate(missing)

    def insert(self, keys: list[np.ndarray], start: np.ndarray, count: np.ndarray) -> None:
        """Add strings that are not there yet, each once."""
        places = self._hash(keys)
        todo, waiting = np.arange(len(places)), np.ones(len(places), bool)
        while len(todo):
            free = todo[self._keys[0][places[todo]] == 0]
            _, first = np.unique(places[free], return_index=True)  # of several for one place, one wins
            winners = free[first]
            target = places[winners]
            for own, key in zip(self._keys, keys, strict=True):
                own[target] = key[winners]
            self.start[target], self.count[target] = start[winners], count[winners]
            waiting[winners] = False
            todo = todo[waiting[todo]]
            taken = self._keys[0][places[todo]] != 0
            places[todo] = (places[todo] + taken) & (self.size - 1)
        self.used += len(places)

    def distinct(self, keys: list[np.ndarray]) -> np.ndarray:
        """The number of the first of each group of equal strings."""
        columns = keys[0] if self.words == 1 else np.stack(keys, axis=1).view(f"V{8 * self.words}").ravel()
        return np.unique(columns, return_index=True)[1]

    def _hash(self, keys: list[np.ndarray]) -> np.ndarray:
        mixed = keys[0] * _GOLDEN
        for key in keys[1:]:
            mixed = (mixed ^ (mixed >> np.uint64(29)) ^ key) * _GOLDEN
        return ((mixed ^ (mixed >> np.uint64(32))) * _GOLDEN >> self._shift).astype(np.int64)

    def _equal(self, places: np.ndarray, keys: list[np.ndarray], which: np.ndarray | slice) -> np.ndarray:
        equal = self._keys[0][places] == keys[0][which]
        for own, key in zip(self._keys[1:], keys[1:], strict=True):
            equal &= own[places] == key[which]
        return equal
