"""What else tells who somebody is or opens a door: home addresses, dates of birth, profiles, secrets.

An address is a street with a house number in front of a postcode, or behind a label; a street alone may be
the subject of a thesis. A date of birth has its label. As in `figures.py`, every pattern takes time in
proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stdnum.iso7064 import mod_11_2

from data_prep.spans import Span

REACH = 90  # characters in front of a postcode in which the street is
POSTCODE = re.compile(
    r"(?<![\w.,/-])(?:(?:NL-)?[1-9]\d{3}[ ]?[A-Z]{2}(?!\w)|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}(?!\w)"
    r"|(?:[BD]-)?[1-9]\d{3,4}(?= [^\W\d_a-z][^\W\d_]{2}))(?P<town>,?\s[^\W\d_a-z][\w'’-]+)?"
)
# What every address with a postcode has: a house in front of figures, or the end of a British postcode.
HOUSE_AND_CODE = re.compile(r"\d[\w/-]{0,6}[,;|•\s–-]{1,4}(?:NL-|[BD]-)?[1-9]\d{3}")
BRITISH_END = re.compile(r"\d[A-Z]{2}(?!\w)")
HOUSE = r"\d{1,4}(?: ?[a-zA-Z](?!\w)|[-–/ ](?:\d{1,3}|[IVX]{1,4}|[a-zA-Z]|hs|bis)(?!\w))?"
STREET_BEFORE = re.compile(
    rf"(?P<street>(?:[^\W\d_][\w'’.-]{{0,30}} ){{0,4}}[^\W\d_][\w'’.-]{{1,40}}) {HOUSE}[,;|•\s–-]{{1,4}}$"
)
ENGLISH = (
    r"\d{1,4}[a-zA-Z]?,? (?:[^\W\d_a-z][\w'’.-]{1,30} ){1,3}"
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Square|Close|Court|Boulevard|Way|Crescent)(?!\w)"
)
STREET_BEHIND = re.compile(rf"(?<!\w){ENGLISH}\.?(?:[,\s]{{1,2}}[^\W\d_a-z][\w-]+){{0,2}}[,\s]{{1,2}}$")
SUFFIX = re.compile(
    r"(?:straat|straatweg|laan|weg|kade|plein|singel|gracht|dijk|hof|dreef|pad|steeg|baan|markt|park|plantsoen|"
    r"haven|wal|str\.|straße|strasse|platz|allee|gasse|ring)$",
    re.I,
)
PREFIXES = frozenset(("van", "de", "der", "den", "het", "ter", "ten", "la", "op"))
LABELLED = re.compile(
    r"(?P<label>\b(?i:(?:(?:home|private|postal|woon|post|huis)\s?-?)?(?:address|adres)[.:\s]{1,3}|"
    r"(?:woonachtig|wonende)[^.\d\n]{0,25}?))"
    rf"(?P<address>{ENGLISH}|[^\W\d_][^\d\n]{{1,50}}? {HOUSE})"
)
ADDRESS_WORDS = ("dres", "address", "Address", "woonachtig", "wonende")
MONTH = r"[^\W\d_]{3,9}\.?"
BIRTH = re.compile(
    r"\b(?:date of birth|birth ?date|d\.?o\.?b\.?|geboorte(?:datum|dag)|geb\.? ?datum|geburtsdatum)"
    r"(?: \([^)\n]{1,20}\))?[.:\s=]{1,3}"
    rf"(?P<date>\d{{1,2}}[-/. ]{{1,2}}(?:\d{{1,2}}|{MONTH})[-/. ]{{1,2}}\d{{2,4}}"
    rf"|\d{{4}}-\d\d-\d\d|{MONTH} \d{{1,2}},? \d{{4}})",
    re.I,
)
ORCID = re.compile(r"(?:https?://(?:www\.)?orcid\.org/)?(?<![\w-])\d{4}-\d{4}-\d{4}-\d{3}[\dX](?![\w-])")
FOUR_AND_FOUR = re.compile(r"-\d{4}-\d{4}-")
PROFILE = re.compile(
    r"(?:https?://)?(?<![\w.])(?:[a-z]{2,3}\.)?(?:linkedin\.com/(?:in|pub)/[\w%.-]+|facebook\.com/profile\.php\?id=\d+"
    r"|researchgate\.net/profile/[\w-]+|academia\.edu/[A-Z][\w-]+)/?",
)
PROFILE_SIGNS = ("linkedin.com/", "facebook.com/profile", "researchgate.net/profile", "academia.edu/")
NAMES = r"(?:[a-z_]*(?:token|secret|password|passwd|api_?key)|pwd|sig|signature|x-amz-[a-z-]+|auth|jwt|sid)"
SECRETS = (  # what each has, and the secret as its group
    (("?",), re.compile(rf"(?<=[?&;#]){NAMES}=(?P<secret>[^\s&#\"'<>)\]]{{4,2000}})", re.I)),
    (("sharepoint.com/",), re.compile(r"sharepoint\.com/[^\s?]{1,300}\?(?P<secret>[^\s\"'<>)\]]{4,300})")),
    (("://",), re.compile(r"(?<=://)(?P<secret>[\w.%+-]{1,64}:[^\s@/:]{1,64})(?=@)")),
    (("eyJ",), re.compile(r"(?<!\w)(?P<secret>eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]{4,})?)")),
    (
        ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-"),
        re.compile(
            r"(?<!\w)(?P<secret>(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}))(?!\w)"
        ),
    ),
    (("sk-",), re.compile(r"(?<!\w)(?P<secret>sk-[\w-]{20,})(?!\w)")),
    (("AKIA",), re.compile(r"(?<!\w)(?P<secret>AKIA[A-Z0-9]{16})(?!\w)")),
    (("PRIVATE KEY",), re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?P<secret>[\w+/=\s]{20,8000})")),
    (
        ("assword", "passw", "achtwoord", "asswort"),
        re.compile(
            r"\b(?:password|passwd|wachtwoord|passwort)\s?[:=]\s?(?P<secret>(?=[^\s\d]*\d)[^\s,;]{6,64}(?<![.]))",
            re.I,
        ),
    ),
)


def addresses(text: str) -> Iterator[Span]:
    """The addresses of a text, with their postcode and town."""
    may_have_one = HOUSE_AND_CODE.search(text) or BRITISH_END.search(text)
    for found in POSTCODE.finditer(text) if may_have_one else ():
        first = max(0, found.start() - REACH)
        start = _street(text[first : found.start()])
        if start is not None:
            yield first + start, found.end()
    if any(word in text for word in ADDRESS_WORDS):
        for found in LABELLED.finditer(text):
            if _begins(found["address"]) is not None or STREET_BEHIND.search(found["address"] + ", "):
                yield found.span("address")


def _street(before: str) -> int | None:
    """Where the street begins that a text ends with, or None."""
    before = before.replace("\n", " ")
    if found := STREET_BEFORE.search(before):
        begin = _begins(found["street"] + " 1")
        return None if begin is None else found.start() + begin
    found = STREET_BEHIND.search(before)
    return found.start() if found else None


def _begins(address: str) -> int | None:
    """Where the name of a street begins in a text that ends with its house number; None if it is none."""
    words = list(re.finditer(r"\S+", re.sub(rf" {HOUSE}$", "", address)))
    if not words or not SUFFIX.search(words[-1][0]):
        return None
    if len(words) == 1 and SUFFIX.fullmatch(words[0][0]):
        return None
    begin: int | None = None
    for word in reversed(words):
        if word[0][0].isupper():
            begin = word.start()
            if word is words[-1] and not SUFFIX.fullmatch(word[0]):
                break
        elif word[0].lower() not in PREFIXES and word is not words[-1]:
            break
    return begin


def birth_dates(text: str) -> Iterator[Span]:
    """The dates of birth behind their label."""
    lower = text.lower()
    if "birth" in lower or "geb" in lower or "dob" in lower or "d.o.b" in lower:
        yield from (found.span("date") for found in BIRTH.finditer(text))


def profiles(text: str) -> Iterator[Span]:
    """ORCID iDs, by their check digit, and addresses of people's pages on networks."""
    for found in ORCID.finditer(text) if FOUR_AND_FOUR.search(text) else ():
        if mod_11_2.is_valid(found[0].rpartition("/")[2].replace("-", "")):
            yield found.span()
    if any(sign in text for sign in PROFILE_SIGNS):
        yield from (found.span() for found in PROFILE.finditer(text))


def secrets(text: str) -> Iterator[Span]:
    """Tokens and passwords: in web addresses, by the form of their issuer, or behind a label."""
    for signs, pattern in SECRETS:
        if any(sign in text for sign in signs):
            yield from (found.span("secret") for found in pattern.finditer(text))
