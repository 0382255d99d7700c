"""The labels of a cover: who wrote a work, who supervised it, and their student numbers.

A label such as "Supervisor:" is evidence that a name follows, on its line or below; so is a student number
beside a name. What is found is taken apart into people (`people.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from data_prep.cover_lines import RunningText, people_of_lines
from data_prep.given_names import GIVEN_NAMES
from data_prep.people import (
    MOST_PEOPLE,
    ORGANISATION,
    PREFIXES,
    TITLES,
    People,
    Person,
    TooManyPeople,
    names_in,
    person_of,
    plain,
)

COVER_BLOCKS = 12  # a cover with its colophon is over by then
LONGEST_VALUE = 160  # characters behind a label; longer is a sentence, not a cover line

ROLE = (
    r"(?:(?:student|author|auteur|schrijver|candidate)(?:\s*/\s*author)?(?:\s*-?\s*(?:name|naam))?|"
    r"names?|na(?:am|men)|"
    r"(?:co-?)?(?:supervisor|promotor|promoter|reader|assessor|examiner|examinator|advisor|adviser|"
    r"mentor|tutor)|"
    r"(?:mede)?(?:beoordelaar|lezer|meelezer|corrector)|[^\W\d_]{0,15}-?(?:begeleider|begeleidster)|"
    r"(?:scriptie|thesis)-?\s?(?:begeleider|coach)|(?:overige|other|committee)\s+(?:leden|members?)|"
    r"contact(?:\s?person|persoon)?|"
    r"coach|coordinator|coördinator|docent|lecturer|opponent|chair(?:man|person)?|voorzitter|"
    r"committee member|researcher|onderzoeker|(?:group|team)\s?members?|groepsleden|editor|redactie|"
    r"cover\s?(?:design|photo)|(?:foto\s)?omslag(?:ontwerp)?|lay-?out|vormgeving|translat(?:ion|or)|vertaling|"
    r"dean|decaan|rector(?:\s+magnificus)?|opdrachtgever|verfasser(?:in)?|betreuer(?:in)?|"
    r"(?:erst|zweit)?gutachter(?:in)?|öğrenci|danışman)"
)
# Roles that also a company or a program may have.
WEAK_ROLE = re.compile(
    r"^\W*[^:=|]{0,30}(?:editor|redactie|design|photo|omslag|lay-?out|vormgeving|translat|vertaling|opdrachtgever|"
    r"research|onderzoeker|members|leden)",
    re.I,
)
PREFIX_WORDS = r"(?:[^\W\d_][\w'’.-]{0,14}\s+){0,2}"
LABEL = (
    rf"(?:{PREFIX_WORDS}{ROLE}(?:\(?'?s\)?|en|\s+(?:1|2|3|i{{1,3}}))?(?:\s+(?:of|van)\s+(?:the\s+|"
    rf"de\s+)?student)?"
    r"(?:\s+(?:student|eur|ese|rsm|erasmus|university|universiteit|company|bedrijf|name|naam)){0,2}"
    r"(?:\s*(?:/|&|and|en)\s*(?:student\s*)?(?:number|nummer|nr|id)\.?)?"
    r"|(?:written|submitted|supervised|prepared|presented|geschreven|begeleid|ingediend|"
    r"opgesteld)\s+(?:by|door)"
    r"|(?:under|onder)\s+(?:the\s+|de\s+)?(?:supervision|guidance|begeleiding|leiding)\s+(?:of|van)"
    r"|by|door)"
)
ORDINAL = r"(?:\d{1,2}(?:st|nd|rd|th|e|ste|de)?[.)]?\s+)?"
SEPARATOR = r"(?:\s*[:;=|•]\s*|\s+[-–]\s+|\s*[-–]\s+)"
COVER_LINE = re.compile(
    rf"^\W*{ORDINAL}(?P<label>{LABEL})(?:\s*\([^)]{{0,40}}\))?"
    rf"(?:(?:\s+(?:(?:at|bij|from|van)\s+)?[^\W\d_][\w&.-]{{1,14}})?{SEPARATOR}(?P<value>.*)|\s*$)",
    re.I,
)
BY_LINE = re.compile(
    r"^\W*(?i:(?:(?:an?\s|een\s)?(?:[\w'’-]{1,20}\s){0,3}(?:thesis|dissertation|report|scriptie|proefschrift)\s)?"
    r"(?:(?:written|submitted|prepared|presented|geschreven|ingediend)\s)?(?:by|door)"
    r"|(?:[\w'’-]{1,20}\s){0,3}(?:thesis|dissertation|scriptie|proefschrift)"
    r"\s(?:by|door|van)"
    r"|(?:under|onder)\s(?:the\s|de\s)?(?:supervision|guidance|begeleiding|leiding)\s(?:of|van))\s+"
    r"(?P<value>(?:(?i:prof|dr|drs|mr|ir|ing|mrs|ms)\.?\s+){0,3}[^\W\d_a-z].*)$"
)
# Two labels on one line ("Name: V. Persoon Student number: 412345"): what is before the second is a value.
INNER_LABEL = re.compile(
    r"(?<!\ben)(?<!\band)(?<![/&])[\s,;|(]{1,3}(?=(?:student|studenten|exam|examen|begeleider|(?:co-?)?(?:supervisor|promotor|reader)|"
    r"lezer|e-?mail|date|datum|tel|phone)[\s-]{0,2}(?:[^\W\d_]{1,16}[\s.]{0,2}){0,2}[:=#]?\s?(?:[:=]|\d))",
    re.I,
)
# A label without a separator, as a table's cells are read; a title, initials or a given name must follow.
BARE_LINE = re.compile(rf"^\W*{ORDINAL}(?i:{LABEL})\s+(?P<value>[^\W\d_][^:=\d\n]{{3,59}})$")
PERSONAL = re.compile(r"(?i:prof|dr|drs|ir|ing|mr|mrs|ms|mw|dhr)\b|[A-Z]\.")
NUMBER_LINE = re.compile(
    r"^\W*(?:student(?:en)?[\s-]?(?:number|nummer|nr|no|id)[.:\s=]{0,4})?(?P<number>[sui]?\d{6,7}[a-z]{0,2})\W*$",
    re.I,
)
NUMBERED = re.compile(  # a name and the student number of who has it, and nothing else
    r"^(?P<value>[^\W\d_][^\d\n(:=]{3,59}?)[\s,(–-]{1,3}"
    r"(?:student(?:en)?[\s-]?(?:number|nummer|nr|no|id)[.:\s]{0,3})?(?P<number>[sui]?\d{6,7}[a-z]{0,2})\)?$",
    re.I,
)
TURNED = re.compile(r"^([^\W\d_a-z][\w'’-]+),? ((?:[^\W\d_a-z]\.\s?){1,5})$")  # "Persoon V.P."
NUMBER_FIRST = re.compile(
    r"^\W*(?:student(?:en)?[\s-]?(?:number|nummer|nr|no|id)[.:\s=]{1,4})?(?P<number>[sui]?\d{6,7}[a-z]{0,2})"
    r"[\s,;:–-]{1,3}(?P<value>[^\W\d_][^\d\n(:=]{3,59})$",
    re.I,
)
NOBODY = re.compile(
    r"\W*(?:unknown|onbekend|anonymous|anoniem|none|geen|n/?a|confidential|vertrouwelijk)\W*", re.I
)
YEAR_AND_MONTH = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])")
LABEL_WORDS = re.compile(
    r"\b(?:number|nummer|numbers|nr|no|code|id|count|aantal|words|woorden|pages?|pagina\w*|student\w*|exam\w*|"
    r"course|vak\w*|date|datum|version|versie|total|totaal|tel\w*|phone|fax|post\w*|box|n|isbn|seed)\b",
    re.I,
)
SURNAME = re.compile(
    r"^\W*(?:last\s?name|surname|family\s?name|achternaam)(?:\s(?:student|author|auteur))?\s*[:=|]\s*"
    r"(?P<value>[^\W\d_][^\d\n:=]{1,39})$",
    re.I,
)
BEHIND_NAME = re.compile(
    r"\s(?:to|for|at|as|on|from|under|in (?:the|order|partial|fulfil\w*)|ter (?:verkrijging|afronding))\s.*"
)
# On a cover these are numbers of students: with a general label, or with the letter of a university.
CARD_NUMBER = re.compile(
    r"(?:(?<!\w)(?:id(?:[\s-]?(?:number|nummer|nr|no))?|reg(?:istr)?\.?\s?(?:no|nr)|student,?\s(?:nr|no))[.\s:#]{1,4}"
    r"|^\W*#)(?P<labelled>\d{6,7})(?!\d)|(?<!\w)(?P<lettered>[sui]\d{6,7})(?!\w)",
    re.I,
)
NUMBER_IN_VALUE = re.compile(r"(?<![\w/-])s?\d{5,8}[a-z]{0,2}(?!\w)", re.I)


def read_cover(blocks: list[str], numbers: bool = True, names: bool = True) -> People:
    """The people and student numbers that the first blocks of a work tell.

    Raises:
        TooManyPeople: there are more than `MOST_PEOPLE`.
    """
    people, found, text = People(), 0, RunningText(blocks)

    def add(person: Person) -> None:
        nonlocal found
        people.add(person)
        found += 1
        if found > MOST_PEOPLE:
            raise TooManyPeople

    for lines in _parts(blocks[:COVER_BLOCKS]):
        for value, number in _with_number(lines, text):
            lines = [*lines, f"by {value}"]
            people.numbers |= {number} if numbers else set()
        if numbers:
            cards = [
                card for line in lines if len(line) <= LONGEST_VALUE for card in CARD_NUMBER.finditer(line)
            ]
            people.numbers.update(card["labelled"] or card["lettered"] for card in cards)
        if names:
            for person in itertools.chain(
                filter(None, map(_surname_alone, lines)), people_of_lines(lines, text)
            ):
                add(person)
        for value, weak in labelled_values(lines):
            if len(value) > LONGEST_VALUE:
                continue
            if weak and not _is_personal(value) and text.speaks_of(value):
                continue
            if numbers:
                people.numbers.update(NUMBER_IN_VALUE.findall(value))
            for person in _people_of(value, text) if names else ():
                add(person)
    return people


def _parts(blocks: list[str]) -> Iterator[list[str]]:
    """The lines of blocks; short blocks that follow each other are read as one, as PDFs part each line."""
    lines: list[str] = []
    for block in blocks:
        part = block.split("\n")
        if max(map(len, part)) > LONGEST_VALUE:
            if lines:
                yield lines
            yield part
            lines = []
        else:
            lines += part
    if lines:
        yield lines


def _people_of(value: str, text: RunningText) -> Iterator[Person]:
    """The people in the value of a label, who may have a surname alone: "Supervisor: dr. Persoon"."""
    value = BEHIND_NAME.sub("", value)
    persons = list(names_in(value))
    yield from persons
    words = [word for word in TITLES.sub(" ", value).strip(" .,").split() if word.lower() not in PREFIXES]
    if persons or len(words) != 1 or not re.fullmatch(r"[^\W\d_a-zß-ÿ][\w'’-]{2,24}", words[0]):
        return
    with_title = bool(TITLES.search(value))
    if not (ORGANISATION.search(value) or NOBODY.fullmatch(value) or text.has_word(words[0])) and (
        with_title or not text.has_subject(words[0])
    ):
        yield Person(words[0])


def labelled_values(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """What is behind the labels of a cover block, on their lines or below; and whether the label is weak.

    A PDF may have all labels first and then all values, as two columns are read one after the other.
    """
    labels = 0
    lines = [part for line in lines for part in _labelled_parts(line)]
    for place, line in enumerate(lines):
        found = COVER_LINE.match(line) or BY_LINE.match(line)
        if found is None and (bare := BARE_LINE.match(line)) and _is_personal(bare["value"]):
            found = bare
        if found is None:
            continue
        value = (found["value"] or "").strip()
        if value:
            if found.re is not BY_LINE or " " in value:  # "Thesis by Publication"
                yield value, WEAK_ROLE.search(line) is not None
            continue
        labels += 1
        below = lines[place + 1 : place + 2]
        if below and not COVER_LINE.match(below[0]):
            run = labels if labels > 1 else 1
            yield from ((value, False) for value in lines[place + 1 : place + 1 + run])
            labels = 0


def _labelled_parts(line: str) -> list[str]:
    """A cover line, cut in front of its second label; a sentence stays whole."""
    return INNER_LABEL.split(line) if len(line) <= LONGEST_VALUE else [line]


def _is_personal(value: str) -> bool:
    """Whether what may be a name begins with a title, initials or a common given name."""
    return bool(PERSONAL.match(value)) or plain(re.split(r"[\s-]", value, maxsplit=1)[0]) in GIVEN_NAMES


def _is_capitalised(word: str) -> bool:
    return word.lstrip("(")[:1].isupper()


def _with_number(lines: list[str], text: RunningText) -> Iterator[tuple[str, str]]:
    """(name, student number) of lines that have only these two, or of a name above a line with the number."""
    for line, below in itertools.pairwise([*lines, ""]):
        found = NUMBERED.match(line) or NUMBER_FIRST.match(line)
        value = TURNED.sub(r"\2 \1", found["value"].strip()) if found else line.strip()
        words = [word for word in value.split() if word.lower() not in PREFIXES]
        if LABEL_WORDS.search(value) or person_of(value) is None or not all(map(_is_capitalised, words)):
            continue
        if found and not YEAR_AND_MONTH.fullmatch(found["number"]):
            if _is_personal(value) or not text.has_word(value):
                yield value, found["number"]
        elif (alone := NUMBER_LINE.match(below)) and _is_personal(value):
            yield value, alone["number"]


def _surname_alone(line: str) -> Person | None:
    """The person whose surname has a label of its own."""
    found = SURNAME.match(line)
    words = [word for word in found["value"].split() if word.lower() not in PREFIXES] if found else []
    if not 1 <= len(words) <= 2 or len(words[-1]) < 3 or not words[0][0].isupper():
        return None
    return None if ORGANISATION.search(found["value"]) else Person(" ".join(words))
