"""The people of a work, and all forms of their names in the whole work.

What a cover says (`cover.py`) is taken apart into given names, initials, a prefix such as "van der", and the
surname. Every occurrence of the surname is then looked at with what is around it: "V. Persoon",
"Persoon, V.", "dr. Persoon".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

MOST_PEOPLE = 1000  # names and student numbers of a cover; each is looked for in the whole work

ORGANISATION = re.compile(
    r"\b(?:schools?|universit\w+|facult\w+|departe?ments?|institut\w+|erasmus|rotterdam|academ\w+|"
    r"hogeschool|college|"
    r"ministerie|ministry|gemeente|municipality|hospital|ziekenhuis|medisch|medical|cent(?:re|er|rum)|"
    r"group|groep|"
    r"bank|b\.?v\.?|n\.?v\.?|inc|ltd|gmbh|company|stichting|foundation|programme|program|master|"
    r"bachelor|thesis|scriptie|"
    r"economics|economie|management|business|bedrijfskunde|law|recht\w*|science\w*|wetenschap\w*|"
    r"studies|research|"
    r"consult\w+|accounting|finance|marketing|policy|beleid|association|statistics|vereniging|council|commission|"
    r"commissie|"
    r"committee|board|international|nederland|netherlands|holland|europ\w+|pricewaterhousecoopers|"
    r"deloitte|kpmg)\b",
    re.I,
)
TITLES = re.compile(
    r"(?<![\w.])(?:professor|prof|doctor|doctorandus|dr|drs|mr|ir|ing|m\.?sc|m\.?a|b\.?sc|b\.?a|ph\.?d|"
    r"ll\.?m|mrs|ms|em|emeritus|"
    r"mba|ra|cpa|hon|dhr|mw|mevr|mevrouw|meneer|heer)(?![\w])\.?(?:dr\b\.?)?",
    re.I,
)
_TITLE_WORDS_TEXT = """
professor prof doctor dr drs mr ir ing mrs ms miss dhr mw mevr mevrouw meneer heer madam sir
"""
TITLE_WORDS = frozenset(_TITLE_WORDS_TEXT.split())
_PREFIXES_TEXT = """
van de der den ten ter te het 't in op von zu zur di da del della la le el al bin ben ibn dos das do
du des d' l' voor aan bij onder over uit aan v.d. vd v/d
"""
PREFIXES = frozenset(_PREFIXES_TEXT.split())
NAME_WORD = re.compile(r"[^\W\d_](?:[\w'’-]*\w)?\.?|'t|’t|[vV][./][dD]\.?")
INITIALS = re.compile(r"(?:[^\W\d_a-zß-ÿ]\.?[-\s]?){1,5}$|(?:[^\W\d_](?:h|hr|j)?\.[-\s]?){1,5}$")


class TooManyPeople(Exception):
    """The first blocks label more people than a work can have."""


@dataclass(frozen=True)
class Person:
    """A name taken apart; all in small letters and without accents, but `surname` as it is written.

    Attributes:
        surname: the last part, capitalised, without its prefix.
        given: given names.
        initials: first letters of the given names.
    """

    surname: str
    given: frozenset[str] = frozenset()
    initials: frozenset[str] = frozenset()


@dataclass
class People:
    """The people of a work by surname, and the student numbers of its cover; lives while one work is "
    "cleaned."""

    by_surname: dict[str, list[Person]] = field(default_factory=dict)
    numbers: set[str] = field(default_factory=set)

    def add(self, person: Person) -> None:
        """Remember a person under the surname, its last part, and each half of a double name."""
        for key in {plain(person.surname), plain(person.surname).split()[-1]}:
            self.by_surname.setdefault(key, []).append(person)
        halves = person.surname.split()[-1].split("-")
        if len(halves) == 2 and all(len(half) > 3 and half[0].isupper() for half in halves):
            for half in halves:
                self.by_surname.setdefault(plain(half), []).append(replace(person, surname=half))
        if len(self.by_surname) + len(self.numbers) > 2 * MOST_PEOPLE:
            raise TooManyPeople


def plain(text: str) -> str:
    """Small letters without accents."""
    if text.isascii():
        return text.lower()
    text = text.replace("ı", "i").replace("ø", "o").replace("Ø", "O").replace("ł", "l").replace("Ł", "L")
    return "".join(
        char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)
    ).lower()


def names_in(value: str) -> Iterator[Person]:
    """The people in the value of a label."""
    value = re.sub(r"\S+@\S+|\[[^\]]*\]", " ", value)
    for part in re.split(r"[;/&|]|\b(?:and|en|und)\b|\s[-–]\s", value):
        words = TITLES.sub(" ", part)
        pieces = [item.strip(" .:-–") for item in re.sub(r"[\d#:]+", " ", words).split(",")]
        pieces = [item for item in pieces if item and not ORGANISATION.search(item)]
        while pieces:
            piece = pieces.pop(0)
            if pieces and _is_inverted(piece, pieces[0]):
                piece = f"{pieces.pop(0)} {piece}"
            person = person_of(piece)
            if person is not None:
                yield person


def _is_inverted(piece: str, following: str) -> bool:
    """Whether "Persoon" with "V.P." or "Voorbeeld van der" behind the comma is one name."""
    surname = [word for word in piece.split() if word.lower() not in PREFIXES]
    given = [word for word in following.split() if word.lower() not in PREFIXES]
    given = [word for word in given if not word.startswith("(")]
    return len(surname) == 1 and 0 < len(given) <= 3 and all(len(word) < 20 for word in given)


def person_of(name: str) -> Person | None:
    """A name taken apart, or None where there is no name of two parts."""
    if len(name) > 60 or ORGANISATION.search(name):
        return None
    nicknames = re.findall(r"\(([^\W\d_][\w'’-]*)\)", name)
    words = NAME_WORD.findall(re.sub(r"\([^)]*\)", " ", re.sub(r"(?<=\w\.)(?=[^\W\d_])", " ", name)))
    if not 2 <= len(words) <= 8:
        return None
    prefix = [place for place, word in enumerate(words) if place and word.lower() in PREFIXES]
    first = prefix[-1] + 1 if prefix and prefix[-1] + 1 < len(words) else len(words) - 1
    surname, before = words[first:], [word for word in words[:first] if word.lower() not in PREFIXES]
    if (
        not before
        or len(plain(surname[-1]).strip(".")) < 2
        or (INITIALS.fullmatch(surname[-1]) and len(surname[-1]) < 3)
    ):
        return None
    if not (surname[0][0].isupper() and before[0][0].isupper()):
        return None
    given = {plain(word) for word in before if not _is_initials(word)} | set(map(plain, nicknames))
    initials = {
        char
        for word in before
        for char in (plain(word)[:1] if not _is_initials(word) else plain(word))
        if char.isalpha()
    }
    return Person(" ".join(surname), frozenset(given), frozenset(initials))


def _is_initials(word: str) -> bool:
    letters = word.replace(".", "").replace("-", "")
    return (
        len(letters) <= 1
        or (word.endswith(".") and len(letters) <= 3)
        or (len(letters) <= 4 and letters.isupper() and not re.search("[AEIOU]", letters))
    )


def surname_pattern(people: People) -> re.Pattern[str] | None:
    """One pattern for all surnames, in capital letters or with a capital, also with accents left out."""
    words: set[str] = set()
    for persons in people.by_surname.values():
        for person in persons:
            for name in {person.surname, person.surname.split()[-1]}:
                words |= {name, plain(name), unicodedata.normalize("NFC", name.lower())}
    if not words:
        return None
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(rf"(?<![\w@])(?:{'|'.join(_spaced(word) for word in longest_first)})(?![\w@])", re.I)


def _spaced(name: str) -> str:
    return r"\s+".join(map(re.escape, name.split()))


BEFORE = re.compile(r"(?P<word>\([^\W\d_][\w'’-]{0,20}\)|[^\W\d_][\w'’.-]{0,24}|['’]t)[\s-]{0,2}$")
BEHIND = re.compile(
    r",\s?(?P<given>(?:[^\W\d_a-zß-ÿ](?:h|hr)?\.[\s-]?){1,5}|[^\W\d_][\w'’-]{1,24}|[A-Z]{1,4}(?!\w))"
    r"(?P<prefix>(?:\s(?:van|de|der|den|von|ten|ter|in|'t|het|la|le|el)){0,3}(?!\w))?"
)


INITIALS_BEFORE = re.compile(
    r"(?<![\w.])((?:[^\W\d_a-zß-ÿ]\.[\s-]?){1,4})(?:(?:van|de|der|den|von|ten|ter|in|'t|het|la|le|el)\s){0,3}$"
)


def occurrences(
    text: str, people: People, pattern: re.Pattern[str], common: frozenset[str]
) -> Iterator[tuple[int, int]]:
    """Where a text names the people of a work.

    Args:
        text: a block.
        people: of the work.
        pattern: of their surnames (`surname_pattern`).
        common: surnames that the work also uses as ordinary words; alone, at the start of a sentence, or in
            small letters, these stay.
    """
    last = 0
    for found in pattern.finditer(text):
        key = plain(" ".join(found[0].split()))
        persons = people.by_surname.get(key) or people.by_surname.get(key.split()[-1], [])
        start, told = _reach_back(text, found.start(), last, persons)
        end = found.end()
        behind = BEHIND.match(text, end)
        if not told and _is_another(text, found.start(), behind, persons):
            continue
        if behind and _fits(behind["given"], persons, found[0][0].isupper()):
            end, told = behind.end(), True
            end -= len(text[end - 1 : end]) if text[end - 1].isspace() else 0
        if told or (found[0][0].isupper() and not (key in common and _begins_sentence(text, found.start()))):
            yield start, end
            last = end


def _reach_back(text: str, start: int, last: int, persons: list[Person]) -> tuple[int, bool]:
    """Where a name begins whose surname begins at `start`, and whether a title or given name is part "
    "of it."""
    given = frozenset().union(*(person.given for person in persons))
    initials = frozenset().union(*(person.initials for person in persons))
    told, at, begin = False, start, start
    while found := BEFORE.search(text, max(last, at - 30), at):
        word = plain(found["word"]).strip("().")
        letters = word.replace(".", "").replace("-", "")
        if (
            word in given
            or found["word"][0] == "("
            or word in TITLE_WORDS
            or (
                len(letters) <= 4
                and set(letters) <= initials
                and (found["word"].isupper() or "." in found["word"])
            )
        ):
            told, begin = True, found.start()
        elif word in PREFIXES:
            begin = found.start() if found["word"][0].isupper() else begin
        else:
            break
        at = found.start()
    if not told and begin == start:
        return start, False
    return begin, told


def _fits(given: str, persons: list[Person], capital: bool) -> bool:
    """Whether the word behind "Persoon," is a given name or the initials of one of the people."""
    letters = plain(given).replace(".", "").replace(" ", "").replace("-", "")
    for person in persons:
        if letters in person.given:
            return True
        if (len(letters) <= 4 and (given.isupper() or "." in given)) and set(letters) & person.initials:
            return True
    return False


def _is_another(text: str, start: int, behind: re.Match[str] | None, persons: list[Person]) -> bool:
    """Whether the initials beside a surname are none of the people's, as in a list of references."""
    known = frozenset().union(*(person.initials for person in persons))
    if not known or not all(person.initials for person in persons):
        return False
    if behind and "." in behind["given"]:
        return not set(plain(behind["given"])) & known
    before = INITIALS_BEFORE.search(text, max(0, start - 40), start)
    return bool(before) and not {char for char in plain(before[1]) if char.isalpha()} & known


def _begins_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip(" \"'“‘(")
    return not before or before[-1] in ".!?:;\n•"
