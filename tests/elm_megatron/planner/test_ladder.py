"""The ladder's law finds what made the losses, and its interval has the model that was left out."""

from __future__ import annotations

import numpy as np
import pytest

from conf.errors import InputError
from elm_megatron.planner.ladder import Law, Rung

SIZES = (2_000_000, 5_000_000, 12_000_000, 30_000_000, 80_000_000)


def family(floor: float, scale: float, exponent: float, noise: float = 0.0, seed: int = 0) -> list[Rung]:
    drawn = np.random.default_rng(seed)
    rungs = []
    for size in SIZES:
        rung = Rung(f"{size}", size, 20 * size, 0.0)
        loss = floor + scale * (rung.compute / 1e15) ** -exponent
        rungs.append(Rung(rung.name, size, rung.tokens, loss * (1 + noise * drawn.standard_normal())))
    return rungs


@pytest.mark.parametrize(("floor", "exponent"), [(0.0, 0.05), (1.7, 0.15), (2.5, 0.3)])
def test_an_exact_law_is_found(floor: float, exponent: float) -> None:
    *known, largest = family(floor, 3.0, exponent)
    law = Law(known)
    found = law.predict(largest.parameters, largest.tokens)
    assert found.loss == pytest.approx(largest.loss, rel=5e-3)
    assert found.low < largest.loss < found.high


def test_the_interval_has_the_largest_model_that_was_left_out() -> None:
    inside = 0
    for seed in range(100):
        *known, largest = family(1.7, 3.0, 0.15, noise=0.004, seed=seed)
        found = Law(known).predict(largest.parameters, largest.tokens)
        inside += found.low <= largest.loss <= found.high
    assert inside >= 90


def test_a_law_that_is_not_followed_gives_a_wide_interval() -> None:
    rungs = [Rung(str(n), n, 20 * n, loss) for n, loss in zip(SIZES, (5.0, 4.2, 4.6, 3.4, 3.8), strict=True)]
    found = Law(rungs[:-1]).predict(rungs[-1].parameters, rungs[-1].tokens)
    exact = Law(family(1.7, 3.0, 0.15)[:-1]).predict(SIZES[-1], 20 * SIZES[-1])
    assert found.high - found.low > 3 * (exact.high - exact.low)


def test_too_few_or_equal_sizes_are_refused() -> None:
    rungs = family(1.7, 3.0, 0.15)
    with pytest.raises(InputError, match="at least 3 trained sizes, found 2"):
        Law(rungs[:2])
    with pytest.raises(InputError, match="same compute"):
        Law([*rungs[:3], rungs[0]])
