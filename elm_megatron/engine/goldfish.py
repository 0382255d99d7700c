"""Goldfish loss: the tokens that no gradient is taken of, so that long passages are not learnt by heart.

Hans et al. 2024, "Be like a Goldfish, Don't Memorize!" (arXiv 2406.10209), the hashed mask: a token is left
out of the loss when a hash of the `context` tokens before it is 0 modulo k, on average one token in k. The
hash is of token ids alone. The same passage loses the same tokens in every document, epoch, layout and
precision, and after a resume, so that a left-out token is not learnt from another copy.

A token with fewer than `context` tokens before it in its sample stays in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(BASE, -1, 1 << 64)


@dataclass(frozen=True)
class Goldfish:
    """Which tokens are left out.

    Attributes:
        k: one in so many, at least 2.
        context: tokens before a token that decide about it.
    """

    k: int
    context: int

    def kept(self, tokens: np.ndarray) -> np.ndarray:
        """Whether the token that follows each position counts, bool [b, s].

        Args:
            tokens: ids of whole sequences, integers [b, s]; what follows position t is the label of t.
        """
        kept = np.ones(tokens.shape, bool)
        if tokens.shape[1] >= self.context:
            kept[:, self.context - 1 :] = self._hashes(tokens) % np.uint64(self.k) != 0
        return kept

    def _hashes(self, tokens: np.ndarray) -> np.ndarray:
        """Hash of every `context` tokens in a row, uint64 [b, s - context + 1].

        A polynomial in `BASE` modulo 2**64 from differences of running sums, so that the work of a token does
        not grow with the context, and then the finalizer of splitmix64 (Steele et al. 2014).
        """
        powers, inverses = _powers(tokens.shape[1])
        sums = np.zeros((len(tokens), tokens.shape[1] + 1), np.uint64)
        np.cumsum((tokens.astype(np.uint64) + np.uint64(1)) * powers, axis=1, out=sums[:, 1:])
        mixed = sums[:, self.context :] - sums[:, : -self.context]
        mixed *= inverses[: mixed.shape[1]]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed ^= mixed >> np.uint64(shift)
            mixed *= np.uint64(factor)
        return mixed ^ (mixed >> np.uint64(31))


@lru_cache(maxsize=4)
def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of `BASE` and of its inverse modulo 2**64, each uint64 [length]."""
    ones = np.ones(length, np.uint64)
    found = []
    for base in (BASE, INVERSE):
        factors = ones * np.uint64(base)
        factors[0] = 1
        found.append(np.multiply.accumulate(factors))
    return found[0], found[1]
