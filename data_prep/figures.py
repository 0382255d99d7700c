"""Personal figures found by what they are: telephone, bank, citizen and student numbers.

A candidate has the form of its kind; evidence decides: a label or a word of its context, a checksum
(python-stdnum), the plans of the telephone networks (phonenumbers). Dates, amounts, ISBNs and lists of weeks
have the same digits and stay.

Works are strangers' files: every pattern takes time in proportion to the text, whatever the text is. So runs
are bounded where a match may begin at each of their characters.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers
from stdnum import iban as ibans
from stdnum.be import nn
from stdnum.nl import bsn

from data_prep.spans import Span

SEPARATORS = r"\s().\-\u2010-\u2013\u2212/"  # all signs that look like a hyphen

# No part of a longer number; but one telephone number may be parted from the next by a comma or a slash.
BEFORE_NUMBER = r"(?<![\w+])(?:(?<!\d[.,/–-])|(?<=\d{7}[,/]))"
BEHIND_NUMBER = r"(?!\w|[.–-]\d|[,/](?!\(?0[1-9])\d)"
NATIONAL = re.compile(rf"{BEFORE_NUMBER}\(?0[1-9](?:[{SEPARATORS}]{{0,3}}\d){{8}}{BEHIND_NUMBER}")
INTERNATIONAL = re.compile(
    rf"(?:(?<![\w+])\+ ?|{BEFORE_NUMBER}00)[1-9]\d{{0,2}}(?:[{SEPARATORS}]{{0,3}}\d){{6,12}}{BEHIND_NUMBER}"
)
LABELLED = re.compile(
    r"(?P<label>\b(?:t[eé]l(?:\.|[eé](?:foon|phone|fon[eo]?|fax))?[ .-]{0,2}(?:nummer|number|nr|no)?|"
    r"(?:tele)?phone(?: ?(?:number|no|nr))?|"
    r"mobiel(?:e nummer)?|mobile?(?: number)?|mob(?:[. ]{0,2}(?:nr|no))?|handy|gsm|cell(?: ?phone)?|fax|"
    r"whatsapp)(?![^\W\d_])[.:;\s)=#-]{0,4}"
    r"|\b(?:bel|call|[TMFP]:|[TMFP]\.:)\s?(?=\+|\(?0))"
    rf"(?P<number>\+?\(?\d(?:[{SEPARATORS}]{{0,3}}\d){{6,14}}){BEHIND_NUMBER}",
    re.I,
)
# Nine digits in Belgium, as 02/555.12.12; ten in North America, as (415) 555-0182.
BELGIAN = re.compile(
    rf"{BEFORE_NUMBER}\(?0\d{{1,2}}\)?[\s/.-]{{1,3}}\d{{2,3}}(?:[\s.-]?\d\d){{2}}(?!\s\d){BEHIND_NUMBER}"
)
AMERICAN = re.compile(rf"(?<![\w.(/-])(?:\([2-9]\d\d\)\s?|[2-9]\d\d[-.])[2-9]\d\d[-.]\d{{4}}{BEHIND_NUMBER}")
DATE = re.compile(
    r"\(?\d{1,2}[-–./ ]\d{1,2}[-–./ ](?:19|20)\d\d(?!\d)|\(?(?:19|20)\d\d[-–./ ]\d\d[-–./ ]\d\d"
)
PAIRS = re.compile(r"\d\d(?:\s\d\d){4}(?:\s\d\d)*")  # a list such as "01 02 03 04 05"
# Behind a label too, these are no number: years, single digits, and bands such as GSM 900/1800.
YEARS = re.compile(r"\(?(?:19|20)\d\d\)?(?:\W{1,3}(?:19|20)\d\d){1,3}")
SINGLE_DIGITS = re.compile(r"\d(?: \d)+")
DECIMALS = re.compile(r"(?:\d\.\d+\s){2}")
YEAR_IN_BRACKETS = re.compile(r"\d\s?\((?:19|20)\d\d(?!\d)")
ROUND = re.compile(r"[1-9]\d*000")
WEAK_LABEL = re.compile(r"(?:gsm|cell|mobile|mob)\s?", re.I)
NO_PHONE = re.compile(
    r"(?:\b(?:isbn|issn|doi|week(?:en|s)?|kvk|nr|no|id|code|eur|euro|usd|gbp)[-.:= ]*|"
    r"[€$£%#=<>*^]\s?)(?:1[03][-: ]*)?$",
    re.I,
)

IBAN = re.compile(
    r"(?:\b|(?<=IBAN))(?:(?i:[A-Z]{2})|[A-Z]{2}\s)\d{2}(?:[\s.-]?[A-Za-z0-9]){11,30}\b",
)
SHORTEST_ACCOUNT = 15  # characters: Norway's
ACCOUNT = re.compile(
    r"\b(?:(?:bank|giro|post)?rekening(?:s?nummer|nr)?|giro(?:nummer|nr)|bank account(?: (?:number|no|nr))?)"
    r"[.:\s]{1,3}(?P<number>\d(?:[. ]?\d){6,9})(?![\w]|[.,]\d)",
    re.I,
)
NINE_DIGITS = re.compile(r"(?<![\w.,/-])(?:\d{9}|\d{4}\.\d{2}\.\d{3}|\d{3} \d{3} \d{3})(?![\w/-]|[.,]\d)")
CITIZEN_CONTEXT = re.compile(
    r"\b(?:bsn|burgerservice\w*|sofi\w*|citizen|social security|persoonsnummer|nummer|number|nr|identi\w+|"
    r"paspoort|passport|geboren|born)\b",
    re.I,
)
NAMED_BSN = re.compile(
    r"(?:\bBSN|burgerservicenummer|sofi-?nummer|citizen service number)(?:[-\s]?(?:nummer|number|nr))?"
    r"[\s.:=#()-]{0,5}(?P<number>\d(?:[. -]?\d){7,8})(?!\d)",
    re.I,
)
BELGIAN_CITIZEN = re.compile(r"(?<![\w.-])\d\d\.\d\d\.\d\d[- ]\d{3}[.-]\d\d(?![\w.-]\d)")
DOCUMENT = re.compile(  # behind its label
    r"\b(?:(?:ssn|social security)(?: (?:number|no|nr))?[.:\s#]{1,3}(?P<ssn>\d{3}-\d{2}-\d{4})|"
    r"(?:passport|paspoort|identity card|id[ -]card|identiteitskaart|rijbewijs|driving licen[cs]e)"
    r"[ -]?(?:number|nummer|no|nr)[.:\s]{1,3}(?P<other>(?=[A-Z]*\d)[A-Z0-9]{6,12}))(?!\w)",
    re.I,
)

NUMBER = r"s?\d{5,8}[a-z]{0,2}"
STUDENT_LABEL = (
    r"(?:stud(?:ent|ie)?(?:en)?[\s.-]*(?:name|naam)?\s*(?:/|&|and|en)?\s*(?:student)?[\s-]*"
    r"(?:(?:i\.?d\.?(?:entification)?[\s-]*)?(?:numbers?|nummers?(?:\(s\))?|nrs?|no|num|#)|i\.?d\.?)"
    r"|st\.?\s?nr|exam(?:en|ination)?\s?(?:nummer|number|nr)s?|\bANR|\bSNR|\b[su]-?(?:number|nummer)|"
    r"\b(?:ERNA|EUR|UFT)[\s-]?(?:id|nr|number|nummer)|\bERNA|collegekaart(?:nummer)?|"
    r"(?:registration|inschrijf|administratie|inschrijvings)\s?-?(?:number|nummer|no|nr)|"
    r"matri(?:c(?:ulation)?|kel)[\s.-]?(?:number|nummer|no|nr)|matr\.?-?\s?nr|num[eé]ro d['’][eé]tudiant|"
    r"\bstudent(?=\s?\(?\d{6}))"
)
STUDENT_NUMBER = re.compile(
    rf"(?:(?<![^\W_])){STUDENT_LABEL}(?:\(s\))?[.\s:#()=–-]{{0,6}}"
    rf"(?P<numbers>(?:\d{{3}}[ .]\d{{3}}|{NUMBER})(?:\s?(?:[,;&/+]|and|en|\s)\s?{NUMBER}){{0,9}})(?!\w)",
    re.I,
)
STUDENT_ID = re.compile(r"(?<![\w/.@-])s\d{7}(?![\w@])")
ONE_NUMBER = re.compile(rf"(?<!\w)[ui]?{NUMBER}(?!\w)", re.I)
PARTED_NUMBER = re.compile(r"\d{3}[ .]\d{3}(?!\d)")


# Without these there is no figure of a kind. They are much faster to look for than the kinds: a pattern that
# begins with one set of characters, and with no group, repetition or look-around, skips to these characters.
FIVE_DIGITS = re.compile(r"\d\d{4}")
SEVEN_DIGITS = re.compile(rf"\d[{SEPARATORS}]{{0,3}}(?:\d[{SEPARATORS}]{{0,3}}){{5}}\d")
IBAN_START = re.compile(r"\d(?:(?<=[^\W\d_]{2}\d)|(?<=[A-Z]{2}\s\d))\d")
LONGEST_LABEL = 48  # characters, separators too, that `LABELLED` and `NAMED_BSN` have before the first digit
CITIZEN_WORDS = ("bsn", "burgerservice", "sofi", "citizen")
DOCUMENT_WORDS = (
    "ssn",
    "security",
    "passport",
    "paspoort",
    "card",
    "kaart",
    "rijbewijs",
    "driving",
)  # each label has one, as below
STUDENT_WORDS = (
    "stud",
    "st.",
    "stnr",
    "st nr",
    "exam",
    "anr",
    "snr",
    "erna",
    "eur id",
    "eur-id",
    "eurid",
    "eur n",
)
STUDENT_WORDS += (
    "uft",
    "collegekaart",
    "matr",
    "registra",
    "inschrij",
    "administratie",
    "étudiant",
    "etudiant",
)
STUDENT_WORDS += ("snumber", "s-number", "unumber", "u-number", "snummer", "s-nummer", "unummer", "u-nummer")


def phones(text: str) -> Iterator[Span]:
    """The telephone numbers of a text.

    A number with a label needs no more than enough digits; one without must be valid in its network.
    """
    seven = SEVEN_DIGITS.search(text)
    if not seven:
        return
    first = max(0, seven.start() - LONGEST_LABEL)
    for found in LABELLED.finditer(text, first):
        if not _is_other_list(found):
            yield found.span("number")
    for found in INTERNATIONAL.finditer(text, first):
        if _is_international(_digits(found[0]), text[found.start()] == "+") and not _denied(text, found):
            yield found.span()
    for found in NATIONAL.finditer(text, first):
        if not _denied(text, found) and not DATE.match(found[0]) and _is_national(_digits(found[0])):
            yield found.span()
    for pattern, region, size in ((BELGIAN, "BE", 9), (AMERICAN, "US", 10)):
        for found in pattern.finditer(text, first):
            digits = _digits(found[0])
            if len(digits) == size and not _denied(text, found) and _is_of(digits, region):
                yield found.span()


def _is_other_list(found: re.Match[str]) -> bool:
    """Whether what is behind a label is dates, years, counted digits, or the bands of a network."""
    number = found["number"]
    if DATE.match(number) or YEARS.fullmatch(number) or SINGLE_DIGITS.fullmatch(number):
        return True
    if DECIMALS.match(number) or YEAR_IN_BRACKETS.search(number) or ROUND.fullmatch(number):
        return True
    if PAIRS.fullmatch(number) and _is_list(number):
        return True
    return bool(WEAK_LABEL.fullmatch(found["label"])) and number[0] not in "+(0"


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text.replace("(0)", "")))


def _denied(text: str, found: re.Match[str]) -> bool:
    """Whether what is around a number, or its own form, says that it is something else."""
    if NO_PHONE.search(text, max(0, found.start() - 12), found.start()):
        return True
    pairs = PAIRS.fullmatch(found[0])
    goes_on = re.match(r"\s\d\d(?!\d)", text[found.end() : found.end() + 4])
    return bool(pairs) and (_is_list(found[0]) or (bool(goes_on) and not found[0].startswith("06")))


def _is_list(text: str) -> bool:
    """Whether numbers are counted up in equal steps, as weeks are."""
    numbers = list(map(int, text.split()))
    return len({after - before for before, after in itertools.pairwise(numbers)}) == 1


@lru_cache(4096)
def _is_national(digits: str) -> bool:
    return len(set(digits)) > 2 and any(_is_of(digits, region) for region in ("NL", "BE"))


@lru_cache(4096)
def _is_of(digits: str, region: str) -> bool:
    """Whether digits are a number of a country; those of films, 555 01xx, are in no plan."""
    number = phonenumbers.parse(digits, region)
    return phonenumbers.is_valid_number(number) or (region == "US" and digits[3:6] == "555")


@lru_cache(4096)
def _is_international(digits: str, plus: bool) -> bool:
    """Whether digits are a number behind its country's code; behind a plus its length is enough."""
    try:
        number = phonenumbers.parse(f"+{digits.removeprefix('00')}")
    except phonenumbers.NumberParseException:
        return False
    check = phonenumbers.is_possible_number if plus else phonenumbers.is_valid_number
    return len(set(digits)) > 2 and check(number)


def bank_accounts(text: str) -> Iterator[Span]:
    """The IBANs of a text; words in capitals or another IBAN may follow one, and look like more of it."""
    if "rekening" in text or "Rekening" in text or "giro" in text or "account" in text:
        yield from (found.span("number") for found in ACCOUNT.finditer(text))
    if not IBAN_START.search(text):
        return
    at = 0
    while found := IBAN.search(text, at):
        ends = [word.end() for word in re.finditer(r"\S+", found[0])]
        end = next((end for end in ends if _is_account(found[0][:end])), None)
        if end is not None:
            yield found.start(), found.start() + end
        at = found.start() + (end or ends[0])


@lru_cache(4096)
def _is_account(text: str) -> bool:
    """Structure and checksum of ISO 13616; which banks exist changes, so no country's own check is made."""
    number = re.sub(r"[\s.-]", "", text)
    return len(number) >= SHORTEST_ACCOUNT and ibans.is_valid(number, check_country=False)


def citizen_numbers(text: str) -> Iterator[Span]:
    """The citizen numbers of a text, and numbers of passports and the like behind their label.

    A Dutch one (BSN) is behind its label, or has a word of the context and passes the eleven test.
    """
    digits = SEVEN_DIGITS.search(text)
    if not digits:
        return
    lower, first = text.lower(), max(0, digits.start() - LONGEST_LABEL)
    for found in NAMED_BSN.finditer(text, first) if any(word in lower for word in CITIZEN_WORDS) else ():
        if len(_digits(found["number"])) in (8, 9):
            yield found.span("number")
    for found in NINE_DIGITS.finditer(text, digits.start()):
        before = text[max(0, found.start() - 40) : found.start()]
        if CITIZEN_CONTEXT.search(before) and bsn.is_valid(_digits(found[0])):
            yield found.span()
    for found in BELGIAN_CITIZEN.finditer(text, digits.start()):
        if nn.is_valid(found[0]):
            yield found.span()
    for found in DOCUMENT.finditer(text) if any(word in lower for word in DOCUMENT_WORDS) else ():
        yield found.span("ssn" if found["ssn"] else "other")


def student_numbers(text: str) -> Iterator[Span]:
    """The student numbers behind a label, and s1234567 anywhere."""
    if not FIVE_DIGITS.search(text) and not PARTED_NUMBER.search(text):
        return
    lower = text.lower()
    for found in STUDENT_NUMBER.finditer(text) if any(word in lower for word in STUDENT_WORDS) else ():
        start = found.start("numbers")
        if parted := PARTED_NUMBER.match(found["numbers"]):
            yield start, start + parted.end()
        yield from ((start + one.start(), start + one.end()) for one in ONE_NUMBER.finditer(found["numbers"]))
    for found in STUDENT_ID.finditer(text):
        yield found.span()
