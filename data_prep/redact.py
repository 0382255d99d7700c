"""Personal data replaced by a placeholder and counted; what was found is returned to nobody.

First the cover tells who made the work: names and student numbers behind labels (`cover.py`). These go in
the whole work, in all their forms (`people.py`). Then figures go by what they are (`figures.py`), and names
in acknowledgements and lists of interviews (`names.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from conf.schema.preprocess import RedactConfig
from data_prep import names
from data_prep.cover import COVER_BLOCKS, read_cover
from data_prep.emails import emails
from data_prep.figures import FIVE_DIGITS, ONE_NUMBER, bank_accounts, citizen_numbers, phones, student_numbers
from data_prep.identity import addresses, birth_dates, profiles, secrets
from data_prep.people import People, occurrences, plain, surname_pattern
from data_prep.spans import Span, replace

KINDS: dict[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    # field of RedactConfig: kind in the account and in the placeholder, how it is found
    "student_number": ("student number", student_numbers),
    "secret": ("secret", secrets),
    "profile": ("profile", profiles),
    "email": ("e-mail", emails),
    "iban": ("IBAN", bank_accounts),
    "citizen_number": ("citizen number", citizen_numbers),
    "birth_date": ("date of birth", birth_dates),
    "phone": ("phone", phones),
    "address": ("home address", addresses),
}
PLACEHOLDER = {"name": "[name]"} | {kind: f"[{kind}]" for kind, _ in KINDS.values()}


def redact(blocks: list[str], config: RedactConfig) -> tuple[list[str], Counter[str]]:
    """Replace personal data in the blocks of one work.

    Returns:
        The blocks and the number of replacements of each kind.

    Raises:
        TooManyPeople: more than `people.MOST_PEOPLE` names stand after labels on the cover.
    """
    counts: Counter[str] = Counter()
    people = read_cover(blocks, config.student_number, config.cover_names)
    if config.student_number:
        find = KINDS["student_number"][1]
        people.numbers.update(
            block[start:end] for block in blocks[:COVER_BLOCKS] for start, end in find(block)
        )
    if config.cover_names and people.by_surname:
        blocks = _without_people(blocks, people, counts)
    if people.numbers:
        bare = {_bare(number) for number in people.numbers}
        blocks = [_without_numbers(block, bare, counts) for block in blocks]
    blocks = [_without_figures(block, config, counts) for block in blocks]
    if config.names != "off":
        blocks = names.without_names(blocks, config, counts)
    return blocks, +counts


def _without_people(blocks: list[str], people: People, counts: Counter[str]) -> list[str]:
    pattern = surname_pattern(people)
    if pattern is None:
        return blocks
    written = [pattern.findall(block) for block in blocks]
    common = frozenset(plain(word) for words in written for word in words if word.islower())
    return [
        _put(block, list(occurrences(block, people, pattern, common)), "name", counts) if words else block
        for block, words in zip(blocks, written, strict=True)
    ]


def _without_numbers(block: str, bare: set[str], counts: Counter[str]) -> str:
    """The student numbers of the cover, wherever the work repeats them, with and without s and letters."""
    if not FIVE_DIGITS.search(block):
        return block
    spans = [found.span() for found in ONE_NUMBER.finditer(block) if _bare(found[0]) in bare]
    return _put(block, spans, "student number", counts)


def _bare(number: str) -> str:
    return re.sub(r"\D", "", number).lstrip("0")


def _without_figures(block: str, config: RedactConfig, counts: Counter[str]) -> str:
    for key, (kind, find) in KINDS.items():
        if getattr(config, key):
            block = _put(block, list(find(block)), kind, counts)
    return block


def _put(block: str, spans: list[Span], kind: str, counts: Counter[str]) -> str:
    if not spans:
        return block
    block, count = replace(block, spans, PLACEHOLDER[kind])
    counts[kind] += count
    return block
