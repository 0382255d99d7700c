"""Personal data replaced by a placeholder and counted; what was found is returned to nobody.

Rules: e-mail addresses; telephone numbers (international, or ten digits from 0); IBANs that pass ISO 7064
mod 97-10; Dutch citizen numbers (BSN) that pass the eleven test; student numbers; the names of student and
supervisors on a thesis' cover, there and wherever the work repeats them.

Works are strangers' files: every pattern takes time in proportion to the text, whatever the text is. So runs
are bounded where a match may begin at each of their characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from conf.schema.preprocess import RedactConfig

COVER_BLOCKS = 12  # a cover with its colophon is over by then
MOST_PEOPLE = 1000  # names and student numbers of a cover; each is looked for in the whole work
EMAIL = re.compile(  # RFC 5321, section 4.5.3.1.1: at most 64 characters before the at-sign
    r"[\w.%+-]{1,64}+\s?(?:@|\(at\)|\[at\])\s?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}|\{[\w.,\s-]+\}@[\w.-]+\w"
)
PHONE = re.compile(
    r"(?<![\w.,/+-])(?:(?:\+|00)[1-9]\d{0,2}[\s.()/-]{0,3}(?:\(0\)[\s]?)?(?:\d[\s.()/-]{0,2}){6,11}\d"
    r"|\(?0[1-9](?:[\s()-]{0,2}\d){8})(?![\w,/]|\.\d)"
)
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}\b")
NINE_DIGITS = re.compile(r"(?<![\w.,/-])(\d{9}|\d{4}\.\d{2}\.\d{3}|\d{3}[ .]\d{3}[ .]\d{3})(?![\w/-]|[.,]\d)")
NAMED_BSN = re.compile(
    r"((?:\bBSN|burgerservicenummer|sofi-?nummer|citizen service number)\W{0,4})(\d[\d. ]{6,10}\d)", re.I
)
STUDENT_NUMBER = re.compile(
    r"((?:student(?:en)?[\s-]*(?:(?:id(?:entification)?[\s-]*)?(?:number|nummer|nr|no|num)|id)"
    r"|exam(?:en)?nummer|exam number|\bANR|\bSNR)[.\s:#()]*)(\d{5,8}[a-z]{0,2})\b",
    re.I,
)
LABEL = (
    r"(?:(?:name|naam)(?:\s+(?:of\s+|van\s+de\s+)?student)?|student(?:\s*name|naam)?|authors?|auteurs?|"
    r"(?:written |submitted |supervised )?by|(?:geschreven |begeleid )?door|"
    r"(?:first\s+|second\s+|eerste\s+|tweede\s+|thesis\s+|scriptie|co-?)?"
    r"(?:supervisor|reader|assessor|examiner|promotor|begeleider|beoordelaar|lezer|meelezer)s?)"
)
COVER_LINE = re.compile(rf"^\W*{LABEL}(?:\s*\([^)]*\))?(?:(?:\s*:|\s+[-–])\s*(?P<value>.*)|\s*$)", re.I)
ORGANISATION = re.compile(r"\b(?:school|universit\w+|facult\w+|departe?ment|institut\w+|erasmus)\b", re.I)
TITLES = re.compile(r"\b(?:prof|dr|drs|mr|ir|ing|msc|ma|bsc|ba|phd|llm|mrs|ms|em)\b\.?", re.I)
NAME = re.compile(r"[^\W\d_][\w'’.-]*(?:\s+[^\W\d_][\w'’.-]*){0,5}")


class TooManyPeople(Exception):
    """The first blocks label more people than a work can have."""


@dataclass(frozen=True)
class Cover:
    """What a cover tells of people, as patterns; lives only while one work is cleaned."""

    names: re.Pattern[str] | None
    numbers: re.Pattern[str] | None


def redact(blocks: list[str], config: RedactConfig) -> tuple[list[str], Counter[str]]:
    """Replace personal data in the blocks of one work.

    Returns:
        The blocks and the number of replacements of each kind.

    Raises:
        TooManyPeople: more than `MOST_PEOPLE` names or numbers stand after labels on the cover.
    """
    counts: Counter[str] = Counter()
    cover = _read_cover(blocks[:COVER_BLOCKS], config)
    return [_redact_block(block, cover, config, counts) for block in blocks], counts


def _redact_block(text: str, cover: Cover, config: RedactConfig, counts: Counter[str]) -> str:
    def replaced(kind: str, placeholder: str, check: Callable[[str], bool] | None = None):
        def replace(match: re.Match[str]) -> str:
            if check is not None and not check(match[match.lastindex or 0]):
                return match[0]
            counts[kind] += 1
            return f"{match[1]}{placeholder}" if match.lastindex == 2 else placeholder

        return replace

    if cover.names:
        text = cover.names.sub(replaced("name", "[name]"), text)
    if config.student_number:
        text = STUDENT_NUMBER.sub(replaced("student number", "[student number]"), text)
        if cover.numbers:
            text = cover.numbers.sub(replaced("student number", "[student number]"), text)
    if config.email and ("@" in text or "at" in text):
        text = EMAIL.sub(replaced("e-mail", "[e-mail]"), text)
    if config.iban:
        text = _without_ibans(text, counts)
    if config.citizen_number:
        text = NAMED_BSN.sub(replaced("citizen number", "[citizen number]", is_citizen_number), text)
        text = NINE_DIGITS.sub(replaced("citizen number", "[citizen number]", is_citizen_number), text)
    if config.phone:
        text = PHONE.sub(replaced("phone", "[phone]", _is_phone), text)
    return text


def is_iban(text: str) -> bool:
    """ISO 13616: the rearranged number, letters as 10 … 35, leaves 1 modulo 97; a Dutch one has 18 signs."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34 or (compact[:2] == "NL" and len(compact) != 18):
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _without_ibans(text: str, counts: Counter[str]) -> str:
    """Each IBAN replaced; words in capitals or another IBAN may follow one, and look like more of it."""
    parts, at = [], 0
    while found := IBAN.search(text, at):
        ends = [word.end() for word in re.finditer(r"\S+", found[0])]
        end = next((end for end in ends if is_iban(found[0][:end])), None)
        if end is None:
            parts.append(text[at : found.start() + ends[0]])
            at = found.start() + ends[0]
        else:
            counts["IBAN"] += 1
            parts += [text[at : found.start()], "[IBAN]"]
            at = found.start() + end
    return "".join(parts) + text[at:]


def is_citizen_number(text: str) -> bool:
    """The eleven test of the BSN: 9·a + 8·b + … + 2·h − i is a multiple of 11; eight digits get a 0."""
    digits = [int(char) for char in text if char.isdigit()]
    digits = [0] * (9 - len(digits)) + digits
    if len(digits) != 9 or len(set(digits)) == 1:
        return False
    return (
        sum(weight * digit for weight, digit in zip((9, 8, 7, 6, 5, 4, 3, 2, -1), digits, strict=True)) % 11
        == 0
    )


def _is_phone(text: str) -> bool:
    digits = [char for char in text if char.isdigit()]
    return 9 <= len(digits) <= 15 and len(set(digits)) > 2


def _read_cover(blocks: list[str], config: RedactConfig) -> Cover:
    """Names after labels such as "Supervisor:", on the same line or the next, and student numbers."""
    names: set[str] = set()
    numbers: set[str] = set()
    for block in blocks:
        lines = block.split("\n")
        for place, line in enumerate(lines):
            found = COVER_LINE.match(line)
            if found is None or not config.cover_names:
                continue
            value = (found["value"] or "").strip() or (lines[place + 1] if place + 1 < len(lines) else "")
            if len(value) <= 100:  # longer is a sentence, not a cover line
                names.update(_names(value))
        numbers.update(match[2] for match in STUDENT_NUMBER.finditer(block))
    return Cover(_any_of(names, re.I), _any_of(numbers))


def _names(value: str) -> set[str]:
    """Names of two words or more, capitalised at both ends, without titles and numbers."""
    found = set()
    for part in re.split(r"[,;/&()\d]|\band\b|\ben\b", TITLES.sub(" ", value)):
        match = NAME.search(part.strip(" .:-–"))
        name = " ".join(match[0].split()).strip(".-") if match else ""
        words = name.split()
        if ORGANISATION.search(name):
            continue
        if 2 <= len(words) <= 6 and words[0][0].isupper() and words[-1][0].isupper():
            found.add(name)
    return found


def _any_of(values: set[str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str] | None:
    """One pattern for all values, the longest first, with any white space between their words."""
    if not values:
        return None
    if len(values) > MOST_PEOPLE:
        raise TooManyPeople
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    words = (r"\s+".join(map(re.escape, value.split())) for value in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", flags)
