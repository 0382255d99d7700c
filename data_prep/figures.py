"""Personal figures found by what they are: e-mail addresses, telephone, bank, citizen and student numbers.

A candidate has the form of its kind; evidence decides: a label or a word of its context, a checksum
(python-stdnum), the plans of the telephone networks (phonenumbers). Dates, amounts, ISBNs and lists of weeks
have the same digits and stay.

Works are strangers' files: every pattern takes time in proportion to the text, whatever the text is. So runs
are bounded where a match may begin at each of their characters.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

import phonenumbers
from stdnum import iban as ibans
from stdnum.nl import bsn

Span = tuple[int, int]
SEPARATORS = r"\s().\-\u2010-\u2013\u2212/"  # all signs that look like a hyphen

AT = r"\s?(?:[@\uff20]|[\[({<]\s?(?:at|a|apenstaartje)\s?[\])}>])\s?"
DOT = r"(?:\.\n?|\s?[\[({]\s?(?:dot|punt)\s?[\])}]\s?)"
LABEL = r"[^\W_](?:[^\W_]|-){0,62}"
AT_IN_BRACKETS = re.compile(r"[\[({<](?i:\s?(?:at|a|apenstaartje)\s?[\])}>])")
# RFC 5321, section 4.5.3.1.1: at most 64 characters before the at-sign.
EMAIL = re.compile(
    rf"(?:\b\w\.\n)?[\w.%+'’-]{{1,64}}+{AT}(?P<domain>{LABEL}(?:{DOT}{LABEL}){{1,8}})"
    r"|\{[\w.,\s-]{1,200}\}@[\w.-]+\w",
    re.I,
)
_COUNTRIES_AND_MORE = """
com org net edu gov int mil info eu biz name museum online site email amsterdam frl gent brussels ac
ad ae af ag al am ao ar at au az ba bb bd be bf bg bh bi bj bn bo br bs bt bw by bz ca cd cf cg ch
ci cl cm cn co cr cu cv cw cy cz de dj dk dm do dz ec ee eg er es et fi fj fm fo fr ga gb gd ge gf
gg gh gi gl gm gn gp gq gr gt gu gw gy hk hn hr ht hu id ie il im in iq ir is it je jm jo jp ke kg
kh km kn kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mk ml mm mn mo mp mq mr ms mt
mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pr ps pt pw py qa
re ro rs ru rw sa sb sc sd se sg si sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm
tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw example test
invalid
"""
TOP_LEVEL = frozenset(_COUNTRIES_AND_MORE.split())
CAPITALISED = ("Com", "Nl", "Org", "Net", "Edu")  # other words with a capital begin a sentence
WORDS = ("am", "as", "at", "be", "by", "de", "do", "in", "is", "it", "me", "my", "no", "so", "to", "us")
LIST_SIGN = re.compile(r"[^\W\d_]+\s?[\[({<]\s?a\s?[\])}>]\s?", re.I)

# No part of a longer number; but one telephone number may be parted from the next by a comma or a slash.
BEFORE_NUMBER = r"(?<![\w+])(?:(?<!\d[.,/–-])|(?<=\d{7}[,/]))"
BEHIND_NUMBER = r"(?!\w|[.–-]\d|[,/](?!\(?0[1-9])\d)"
NATIONAL = re.compile(rf"{BEFORE_NUMBER}\(?0[1-9](?:[{SEPARATORS}]{{0,3}}\d){{8}}{BEHIND_NUMBER}")
INTERNATIONAL = re.compile(
    rf"(?:(?<![\w+])\+ ?|{BEFORE_NUMBER}00)[1-9]\d{{0,2}}(?:[{SEPARATORS}]{{0,3}}\d){{6,12}}{BEHIND_NUMBER}"
)
LABELLED = re.compile(
    r"(?P<label>\b(?:tel(?:\.|efoon|ephone)?[ .-]{0,2}(?:nummer|number|nr|no)?|"
    r"(?:tele)?phone(?: ?(?:number|no|nr))?|"
    r"mobiel(?:e nummer)?|mobile(?: number)?|mob|gsm|cell(?: ?phone)?|fax|whatsapp)\b[.:;\s)=#-]{0,4}"
    r"|\b(?:bel|call|[TMFP]:|[TMFP]\.:)\s?(?=\+|\(?0))"
    rf"(?P<number>\+?\(?\d(?:[{SEPARATORS}]{{0,3}}\d){{6,14}}){BEHIND_NUMBER}",
    re.I,
)
DATE = re.compile(
    r"\(?\d{1,2}[-–./ ]\d{1,2}[-–./ ](?:19|20)\d\d(?!\d)|\(?(?:19|20)\d\d[-–./ ]\d\d[-–./ ]\d\d"
)
PAIRS = re.compile(r"\d\d(?:\s\d\d){4}(?:\s\d\d)*")  # a list such as "01 02 03 04 05"
# Behind a label too, these are no number: years, single digits, and bands such as GSM 900/1800.
YEARS = re.compile(r"\(?(?:19|20)\d\d\)?(?:\W{1,3}(?:19|20)\d\d){1,3}")
SINGLE_DIGITS = re.compile(r"\d(?: \d)+")
WEAK_LABEL = re.compile(r"(?:gsm|cell|mobile|mob)\s?", re.I)
NO_PHONE = re.compile(
    r"(?:\b(?:isbn|issn|doi|week(?:en|s)?|kvk|nr|no|id|code|eur|euro|usd|gbp)[-.:= ]*|"
    r"[€$£%#=<>*^]\s?)(?:1[03][-: ]*)?$",
    re.I,
)

IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ .-]?[A-Z0-9]){11,30}\b", re.I)
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

NUMBER = r"s?\d{5,8}[a-z]{0,2}"
STUDENT_LABEL = (
    r"(?:student(?:en)?[\s-]*(?:name|naam)?\s*(?:/|&|and|en)?\s*(?:student)?[\s-]*"
    r"(?:(?:id(?:entification)?[\s-]*)?(?:numbers?|nummers?|nrs?|no|num|#)|id)"
    r"|exam(?:en)?\s?(?:nummer|number)s?|\bANR|\bSNR|\bERNA|collegekaart(?:nummer)?|"
    r"matric(?:ulation)?\s?(?:number|no))"
)
STUDENT_NUMBER = re.compile(
    rf"(?:(?<![^\W_])){STUDENT_LABEL}[.\s:#()=–-]{{0,6}}(?P<numbers>{NUMBER}(?:\s?(?:[,;&/+]|and|en|"
    rf"\s)\s?{NUMBER}){{0,9}})(?!\w)",
    re.I,
)
STUDENT_ID = re.compile(r"(?<![\w/.@-])s\d{7}(?![\w@])")
ONE_NUMBER = re.compile(rf"(?<!\w){NUMBER}(?!\w)", re.I)


# Without these there is no figure of a kind. They are much faster to look for than the kinds: a pattern that
# begins with one set of characters, and with no group, repetition or look-around, skips to these characters.
FIVE_DIGITS = re.compile(r"\d\d{4}")
SEVEN_DIGITS = re.compile(rf"\d[{SEPARATORS}]{{0,3}}(?:\d[{SEPARATORS}]{{0,3}}){{5}}\d")
IBAN_START = re.compile(r"\d(?<=[^\W\d_]{2}\d)\d")
LONGEST_LABEL = 48  # characters, separators too, that `LABELLED` and `NAMED_BSN` have before the first digit
CITIZEN_WORDS = ("bsn", "burgerservice", "sofi", "citizen")  # each label has one, as below
STUDENT_WORDS = ("student", "exam", "anr", "snr", "erna", "collegekaart", "matric")


def emails(text: str) -> Iterator[Span]:
    """The e-mail addresses of a text, also wrapped at a line end and with [at] and [dot]."""
    if "@" not in text and "\uff20" not in text and not AT_IN_BRACKETS.search(text):
        return
    at = 0
    while found := EMAIL.search(text, at):
        start, end = found.span()
        if found["domain"] is not None:
            end = _domain_end(text, *found.span("domain"))
            if end and _is_list_sign(text[start : found.start("domain")], text[found.start("domain") : end]):
                end = 0
        if end:
            yield start, end
        at = max(end, start + 1) if end else found.start("domain")


def _is_list_sign(before: str, domain: str) -> bool:
    """Whether "(a)" behind a word counts: before the address of a site, or where two sentences touch."""
    top_level = domain.rpartition(".")[2].lower()
    return bool(LIST_SIGN.fullmatch(before)) and (domain.startswith("www.") or top_level in WORDS)


def _domain_end(text: str, start: int, end: int) -> int:
    """Where a domain ends: behind the last label that is a top-level domain; 0 where there is none."""
    dots = [item.start() for item in re.finditer(DOT, text[start:end], re.I)]
    ends = [*dots[1:], end - start]
    labels = re.split(DOT, text[start:end], flags=re.I)
    for number in range(len(labels) - 1, 0, -1):
        label = labels[number]
        if (
            (label.islower() or label.isupper() or label in CAPITALISED)
            and label.lower() in TOP_LEVEL
            and len(labels[number - 1]) > 1
        ):
            return start + ends[number - 1]
    return 0


def phones(text: str) -> Iterator[Span]:
    """The telephone numbers of a text.

    A number with a label needs no more than enough digits; one without must be valid in its network.
    """
    digits = SEVEN_DIGITS.search(text)
    if not digits:
        return
    first = max(0, digits.start() - LONGEST_LABEL)
    for found in LABELLED.finditer(text, first):
        if not _is_other_list(found):
            yield found.span("number")
    for found in INTERNATIONAL.finditer(text, first):
        if _is_international(_digits(found[0]), text[found.start()] == "+") and not _denied(text, found):
            yield found.span()
    for found in NATIONAL.finditer(text, first):
        if not _denied(text, found) and not DATE.match(found[0]) and _is_national(_digits(found[0])):
            yield found.span()


def _is_other_list(found: re.Match[str]) -> bool:
    """Whether what is behind a label is dates, years, counted digits, or the bands of a network."""
    number = found["number"]
    if DATE.match(number) or YEARS.fullmatch(number) or SINGLE_DIGITS.fullmatch(number):
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
    if len(set(digits)) <= 2:
        return False
    return any(phonenumbers.is_valid_number(phonenumbers.parse(digits, region)) for region in ("NL", "BE"))


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
    if not IBAN_START.search(text):
        return
    at = 0
    while found := IBAN.search(text, at):
        ends = [word.end() for word in re.finditer(r"\S+", found[0])]
        end = next((end for end in ends if _is_account(found[0][:end])), None)
        if end is not None:
            yield found.start(), found.start() + end
        at = found.start() + (end or ends[0])


def _is_account(text: str) -> bool:
    """Structure and checksum of ISO 13616; which banks exist changes, so the country's own check is "
    "left out."""
    return ibans.is_valid(re.sub(r"[ .-]", "", text), check_country=False)


def citizen_numbers(text: str) -> Iterator[Span]:
    """The Dutch citizen numbers (BSN): behind their label, or with a word of the context and the "
    "eleven test."""
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


def student_numbers(text: str) -> Iterator[Span]:
    """The student numbers behind a label, and s1234567 anywhere."""
    if not FIVE_DIGITS.search(text):
        return
    lower = text.lower()
    for found in STUDENT_NUMBER.finditer(text) if any(word in lower for word in STUDENT_WORDS) else ():
        start = found.start("numbers")
        yield from ((start + one.start(), start + one.end()) for one in ONE_NUMBER.finditer(found["numbers"]))
    for found in STUDENT_ID.finditer(text):
        yield found.span()


KINDS: dict[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    # field of RedactConfig: kind in the account and in the placeholder, how it is found
    "student_number": ("student number", student_numbers),
    "email": ("e-mail", emails),
    "iban": ("IBAN", bank_accounts),
    "citizen_number": ("citizen number", citizen_numbers),
    "phone": ("phone", phones),
}


def replace(text: str, spans: Iterator[Span] | list[Span], placeholder: str) -> tuple[str, int]:
    """A text with a placeholder in place of each span, of which some may overlap; and how many it has."""
    parts, at, count = [], 0, 0
    for start, end in sorted(spans):
        if start < at:
            continue
        parts += text[at:start], placeholder
        at, count = end, count + 1
    return ("".join([*parts, text[at:]]), count) if count else (text, 0)
