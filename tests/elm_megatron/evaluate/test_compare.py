"""The win rate of a tuned model beside the one before it, and what is proposed."""

from __future__ import annotations

import pytest

from elm_megatron.evaluate.compare import compared, shown, wilson


def test_wilson_as_published() -> None:
    """Newcombe (1998), table I: 81 of 263 and 0 of 20."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_winner_is_proposed_only_where_the_interval_says_so() -> None:
    prompts = [str(n) for n in range(40)]
    better = compared(prompts, [1.0] * 40, [0.5] * 40)
    assert better.win_rate == 1 and better.verdict == "new" and better.agreement == (1.0, 1.0)
    worse = compared(prompts, [-1.0] * 40, [0.5] * 40)
    assert worse.win_rate == 0 and worse.verdict == "present" and worse.agreement == (0.0, 1.0)
    even = compared(prompts, [1.0, 0.0] * 20, [0.5] * 40)
    assert even.win_rate == 0.5 and even.verdict == "undecided" and even.low < 0.5 < even.high
    assert compared(["a", "b"], [1.0, 1.0], [0.0, 0.0]).verdict == "undecided"  # two prompts decide nothing


def test_many_votes_on_one_prompt_count_once_and_ties_as_half() -> None:
    found = compared(["a"] * 9 + ["b"], [1.0] * 9 + [0.0], [0.0] * 10)
    assert found.prompts == 2 and found.win_rate == 0.75


def test_a_person_decides() -> None:
    result = {
        "new": "b",
        "present": "a",
        "prompts": 40,
        **vars(compared([str(n) for n in range(40)], [1.0] * 40, [0.0] * 40)),
    }
    assert shown(result | {"proposed": "b"}).endswith("Proposed: b. A person decides.")
    assert shown(result | {"proposed": None}).endswith("neither is proposed.")
