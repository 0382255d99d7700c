"""What a harvested record says in Dublin Core: whether the work may be used, where it is, and what it is.

Creators are not read. Access and embargo are stated in the words of info:eu-repo (OpenAIRE's guidelines), as
an address of COAR's access rights (https://vocabularies.coar-repositories.org/access_rights/), or in prose.
A statement that a work is not open counts whatever else its record says.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from conf.schema.preprocess import HarvestSource
from data_prep.web import Refused

EMBARGO = re.compile(r"embargo|access_right/c_f1cf", re.I)
# What says that there is none, taken out before the rest is read.
DENIED = re.compile(
    r"\b(?:no|non|not|geen|niet|zonder|without)\b[ -]*(?:longer )?(?:under |onder )?"
    r"(?:embargo|confidential|vertrouwelijk)\w*|embargo\W*(?:none|geen|lifted|expired|opgeheven|verlopen)\b(?!\D{0,40}\d)",
    re.I,
)
DATE = r"\d{4}-\d{2}(?:-\d{2})?|\d{1,2}-\d{1,2}-\d{4}"
# In prose a year alone may be that of the copyright; of two dates the last is the end.
EMBARGO_END = re.compile(
    r"embargoEnd/(\d{4}(?:-\d{2}){0,2})"
    rf"|embargo(?:ed)?(?:\W|access|period|date|from|since|until|till|tot|ended|ends?|lifted|lifts?|on|op|{DATE})*"
    rf"(?<!\d)({DATE})(?!\d)",
    re.I,
)
CLOSED = re.compile(
    r"(closed|restricted)\s*access|metadata[ -]?only|access\s*[:=-]?\s*(closed|restricted|denied)\b(?! to)"
    r"|confidential|vertrouwelijk|(geen|gesloten|beperkte) toegang"
    r"|\bno access\b(?! (?:restriction|constraint|limitation|fee|charge))"
    r"|\b(not|non|niet)[ -](open|public|openbaar|publicly (?:available|accessible))\b(?! (?:for|voor) )"
    r"|^\W*(closed|restricted)\W*$|access_right/c_1(4cb|6ec)",
    re.I,
)
OPEN = re.compile(
    r"open\s*access|creativecommons\.org/(licenses|publicdomain)|\bCC[ -]BY|\bCC0\b|access_right/c_abf2", re.I
)
LICENCE = re.compile(
    r"https?://creativecommons\.org/[\w/.-]+|\bCC0\b"
    r"|\bCC[ -]BY(?:[ -]?(?:NC|ND|SA|Non-?Commercial|No-?Deriv\w*|Share-?Alike))*(?:[ -]\d\.\d)?",
    re.I,
)
LANGUAGES = {"nl": "nl", "dut": "nl", "nld": "nl", "en": "en", "eng": "en"}
LONGEST = 500  # characters of a title or another field that is kept
MOST_NAMES = 20  # of one work that are kept


def describe(metadata: dict, source: HarvestSource, today: datetime.date | None = None) -> dict:
    """Title, year, language and licence of a Dublin Core record, if it may be used.

    Raises:
        Refused: ``embargo``, ``closed_access`` or ``access_unknown``.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    rights, end = _rights(metadata), embargo_end(metadata, today)
    stated = any(EMBARGO.search(value) for value in [*rights, *_values(metadata, "date")])
    if stated and (end or "9999") > today.isoformat():
        raise Refused("embargo")
    if any(CLOSED.search(value) for value in rights):
        raise Refused("closed_access")
    if not (any(OPEN.search(value) for value in rights) or end or source.assume_open):
        raise Refused("access_unknown")
    years = [
        int(year) for value in _values(metadata, "date") for year in re.findall(r"\b(?:19|20)\d\d\b", value)
    ]
    languages = [
        LANGUAGES.get(value.lower().strip()[:3].rstrip("-_")) for value in _values(metadata, "language")
    ]
    licences = filter(None, map(LICENCE.search, rights))
    return {
        "title": next(iter(_values(metadata, "title")), "")[:LONGEST],
        "year": min(years) if years else None,
        "language": next(filter(None, languages), None),
        "licence": next((found[0][:LONGEST] for found in licences), "open access, all rights reserved"),
        "embargo": end,
        "access": "open access" if any(OPEN.search(value) for value in rights) else "assumed open",
        "rights_basis": source.rights_basis,
    }


def embargo_end(metadata: dict, today: datetime.date | None = None) -> str | None:
    """The last day of an embargo, ``YYYY-MM-DD``, or None; of a year or a month alone it is the last day.

    A date in Europe's order counts as its year, and a year to come that stands beside an embargo as its end.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    ends = []
    for value in [*_rights(metadata), *_values(metadata, "date")]:
        found = [match[1] or match[2] for match in EMBARGO_END.finditer(value)]
        if EMBARGO.search(value):
            found += [year for year in re.findall(r"\b2\d{3}\b(?!-\d)", value) if int(year) > today.year]
        ends += [end[-4:] if re.match(r"\d{1,2}-", end) else end for end in found]
    return max((end + "-12-31"[len(end) - 4 :] for end in ends), default=None)


def _rights(metadata: dict) -> list[str]:
    return [
        DENIED.sub("", value) for value in _values(metadata, "rights") + _values(metadata, "accessRights")
    ]


def _values(metadata: dict, name: str) -> list[str]:
    return [str(value).strip() for value in metadata.get(name) or [] if value and str(value).strip()]


def names(metadata: dict) -> list[str]:
    """The identifiers of a record that name its work elsewhere: addresses, DOIs, handles."""
    return [value for value in _values(metadata, "identifier") if len(value) <= LONGEST][:MOST_NAMES]


def addresses(metadata: dict) -> Iterator[str]:
    """The web addresses of a record, those that end like a file first."""
    found = [value for name in ("identifier", "relation", "source") for value in _values(metadata, name)]
    found = [value for value in found if re.match(r"https?://", value)]
    yield from sorted(dict.fromkeys(found), key=lambda url: not url.lower().endswith((".pdf", ".txt")))
