"""Lines of a cover that name somebody without a label in front.

A name is believed here only with a second sign: a title, a role or a student number beside it, an e-mail
address below it, a sign of copyright, or a common given name beside a place, a date or a degree. Signs that
also a subject has ("Jane Austen") are weak: such a name counts only where the work does not speak of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from data_prep.given_names import GIVEN_NAMES
from data_prep.people import ORGANISATION, PREFIXES, TITLES, Person, person_of, plain

LONGEST_LINE = 100
NAME = r"[^\W\d_][\w'’.() -]{2,58}?"
TITLED = re.compile(
    r"^\W{0,3}(?P<value>"
    r"(?i:(?:prof(?:essor)?|drs?|mr|ir|ing|mrs|ms|mw|mevr|dhr|de heer|mevrouw)\b\.?[\s-]?){1,4}"
    rf"{NAME})(?P<behind>,? (?:(?:R[AC]|MSc|BSc|MA|BA|MBA|LLM|PhD|CPA|EMIA|CIA)\W?){{1,3}})?\W{{0,2}}$"
)
ROLE_WORD = (
    r"(?:[\w-]+ ){0,2}(?:supervisor|promotor|promoter|reader|assessor|examiner|advis[eo]r|mentor|coach|"
    r"chair(?:man)?|begeleider|begeleidster|beoordelaar|lezer|meelezer|voorzitter|author|auteur|student|"
    r"candidate|onderzoeker|researcher|member|lid)"
)
ROLE_BEHIND = re.compile(
    rf"^\W{{0,3}}(?P<value>{NAME})\s?(?:[,–|-]\s?{ROLE_WORD}|\(\s?{ROLE_WORD}\s?\))\W*$", re.I
)
COPYRIGHT = re.compile(
    r"^\W{0,3}(?:(?:©|\(c\)|copyright)[\s:]*){1,2}(?:by\s|door\s)?(?:(?:19|20)\d\d)?[,\s]*(?:by\s|door\s)?"
    rf"(?P<value>{NAME})(?:[,.\s]+(?:(?:19|20)\d\d|all rights.*|alle rechten.*|rotterdam.*))?\W*$",
    re.I,
)
DATED = re.compile(
    rf"^(?P<value>{NAME}),\s?(?:[^\W\d_][\w-]+,?\s)?(?:\d{{1,2}}\s)?(?:[^\W\d_]{{3,9}}\s)?(?:19|20)\d\d$"
)
THESIS_OF = re.compile(
    rf"^\W*(?:[\w'’-]+\s){{0,3}}(?:thesis|dissertation|scriptie)\sof\s(?P<value>{NAME})\W*$", re.I
)
INITIALS_FIRST = re.compile(
    r"^\W{0,3}(?P<value>(?:[^\W\d_a-zß-ÿ]\.\s?-?){1,5}(?:\([\w-]+\)\s)?[^\W\d_][\w'’ -]{2,40})$"
)
BESIDE = re.compile(
    r"\b(?:19|20)\d\d\b|@|\[e-mail\]|\b(?:rotterdam|thesis|scriptie|university|universiteit|m\.?sc|b\.?sc|"
    r"bachelor\w*|faculty|faculteit|school|student\w*|supervisor|begeleider)\b|\b\d{6}\b",
    re.I,
)
ADDRESS = re.compile(r"^\W*(?:e-?mail\W{0,3})?[\w.+'’-]{2,64}(?:@|\s?[\[(]at[\])]\s?)[\w.-]+\W*$", re.I)
NO_SUBJECT = 3  # times that a work may name somebody whom only weak signs make its author
WORD = re.compile(r"\w+")
RUNNING = 60  # characters of a line of running text


def people_of_lines(lines: list[str], text: RunningText) -> Iterator[Person]:
    """The people whom lines of a cover name by other signs than a label.

    Args:
        lines: of the cover's blocks.
        text: what the whole work says.
    """
    named = False  # the line above
    for place, line in enumerate(lines):
        around = lines[place + 1 : place + 2] + lines[max(0, place - 1) : place]
        values = _values(line, *lines[place + 1 : place + 2], after_a_name=named)
        named = False
        if not 4 < len(line) <= LONGEST_LINE:
            continue
        if _is_name_alone(line) and any(map(BESIDE.search, around)):
            values = itertools.chain(values, [(line, True)])
        for value, weak in values:
            person = _person(value, line)
            if person is not None and not (weak and text.speaks_of(person.surname)):
                yield person
                named = True
                break


def _values(line: str, below: str = "", *, after_a_name: bool) -> Iterator[tuple[str, bool]]:
    """(what may be a name, whether its sign is weak)."""
    if found := ROLE_BEHIND.match(line):
        yield found["value"], False
    if found := TITLED.match(line):
        yield found["value"], False
    if found := COPYRIGHT.match(line):
        yield found["value"], True
    if (found := DATED.match(line) or THESIS_OF.match(line)) and _is_personal(found["value"]):
        yield found["value"], True
    if ADDRESS.match(below):
        yield line, True
    if (found := INITIALS_FIRST.match(line)) and (after_a_name or BESIDE.search(below)):
        yield found["value"], True


def _person(value: str, line: str) -> Person | None:
    """The person in a part of a line that is a name and nothing else; a role lets a surname be enough."""
    name = TITLES.sub(" ", value).strip(" ,.;:-–|")
    words = [word for word in re.split(r"[\s.]+", name) if word]
    capital = all(word.lstrip("(")[:1].isupper() or word.lower() in PREFIXES for word in words)
    if not capital or ORGANISATION.search(name):
        return None
    alone = len(words) == 1 and len(words[0]) > 2 and TITLES.search(value) and ROLE_BEHIND.match(line)
    return Person(words[0]) if alone else person_of(name)


def _is_personal(value: str) -> bool:
    first = plain(re.split(r"[\s-]", value.strip(), maxsplit=1)[0])
    return first in GIVEN_NAMES or bool(re.match(r"\W*[A-Z]\.", value))


def _is_name_alone(line: str) -> bool:
    words = line.split()
    full = [word for word in words if word.lower() not in PREFIXES]
    return (
        2 <= len(full) <= 4
        and len(line) < 50
        and _is_personal(line)
        and all(word[0].isupper() for word in full)
    )


class RunningText:
    """What a work says with a name's word."""

    def __init__(self, blocks: list[str]) -> None:
        """Look at nothing yet."""
        self._blocks = blocks

    def has_word(self, name: str) -> bool:
        """Whether the last word of a name is also a word in small letters."""
        word = _last(name).lower()
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        return any(word in block and pattern.search(block) for block in self._blocks)

    def has_subject(self, name: str) -> bool:
        """Whether the last word of a name is in too many lines for that of one of the work's makers."""
        word = _last(name)
        blocks = (block for block in self._blocks if word in block or word.upper() in block)
        lines = (line.lower() for block in blocks for line in block.split("\n") if len(line) > RUNNING)
        return sum(word.lower() in WORD.findall(line) for line in lines) > NO_SUBJECT

    def speaks_of(self, name: str) -> bool:
        """Whether a name is for something else than one of the work's makers."""
        return self.has_word(name) or self.has_subject(name)


def _last(name: str) -> str:
    words = WORD.findall(name)
    return words[-1] if words else ""
