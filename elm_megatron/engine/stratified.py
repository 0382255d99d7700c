"""A fixed sample of the validation split, drawn by the seed: every language has its share of it."""

from __future__ import annotations

import numpy as np


def allotted(count: int, sizes: dict[str, int]) -> dict[str, int]:
    """How many of `count` samples each stratum gives: its share, rounded by largest remainder, at least one.

    Args:
        count: samples wanted in all.
        sizes: samples of each stratum, at least one each.
    """
    total = sum(sizes.values())
    if count >= total:
        return dict(sizes)
    exact = {name: count * size / total for name, size in sizes.items()}
    given = {name: max(1, int(share)) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (given[name] - exact[name], name))
    for name in by_remainder[: max(0, count - sum(given.values()))]:
        given[name] += 1
    return given


def drawn(count: int, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Ids of a sample of each stratum, ascending, int64: a function of the sizes, the seed and the names."""
    chosen = {}
    for name, number in allotted(count, sizes).items():
        rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
        chosen[name] = np.sort(rng.permutation(sizes[name])[:number]).astype(np.int64)
    return chosen
