"""Items of tasks in the training data: every planted one is found, and no innocent one."""

from __future__ import annotations

import random

from elm_megatron.evaluate.decontaminate import contaminated, without

SYLLABLES = ["ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "zi", "ho", "ja"]


def sentence(source: random.Random, words: int) -> str:
    """Invented words."""
    return " ".join("".join(source.choices(SYLLABLES, k=source.randint(2, 4))) for _ in range(words))


def item(source: random.Random, words: int) -> dict:
    """As tasks have them: a question, choices, and things that are no text."""
    return {
        "id": source.randint(0, 99),
        "question": sentence(source, words),
        "choices": [sentence(source, 2) for _ in range(4)],
        "answer": 2,
    }


def test_all_planted_and_no_innocent() -> None:
    source = random.Random(1)
    planted = [item(source, source.choice((6, 9, 12, 13, 20, 60))) for _ in range(200)]
    innocent = [item(source, source.choice((6, 9, 12, 13, 20, 60))) for _ in range(1000)]
    documents = []
    for number in range(300):
        text = sentence(source, 400)
        if number < 200:
            question = planted[number]["question"]
            # As people copy: another case, other spaces, punctuation.
            text += (
                "\n"
                + question.upper().replace(" ", "  ", 3).replace(" ", ", ", 1)
                + "! "
                + sentence(source, 50)
            )
        documents.append((f"work-{number}", text))
    items = planted + innocent
    order = source.sample(range(len(items)), len(items))
    found = contaminated({"a": [items[i] for i in order], "b": innocent}, documents)
    assert {order[i]: work for i, work in found["a"].items()} == {i: f"work-{i}" for i in range(200)}
    assert found["b"] == {}


def test_a_part_of_a_long_text_is_enough() -> None:
    source = random.Random(2)
    long = sentence(source, 100)
    part = " ".join(long.split()[40:53])
    less = " ".join(long.split()[40:52])
    assert contaminated({"t": [{"text": long}]}, [("x", f"a {part} b")]) == {"t": {0: "x"}}
    assert contaminated({"t": [{"text": long}]}, [("x", f"a {less} b")]) == {"t": {}}


def test_the_mean_without() -> None:
    samples = [{"acc": 1.0}, {"acc": 0.0}, {"acc": 1.0}, {"acc": 1.0}]
    assert without(samples, "acc", [0, 2]) == 0.5
    assert without(samples, "acc", [0, 1, 2, 3]) is None
    assert without([{"bits_per_byte": (1, 2)}], "bits_per_byte", []) is None
