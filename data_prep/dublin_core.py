"""What a harvested record says in Dublin Core: whether the work may be used, where it is, and what it is.

Creators are not read. Access and embargo are stated in the words of info:eu-repo (OpenAIRE's guidelines).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from data_prep.config import HarvestSource
from data_prep.web import Refused

EMBARGO = re.compile(r"embargoEnd/(\d{4}(?:-\d{2}){0,2})")
CLOSED = re.compile(r"(closed|restricted|metadata ?only)\s*access", re.I)
OPEN = re.compile(r"open\s*access|creativecommons\.org/(licenses|publicdomain)|\bCC[ -]BY|\bCC0\b", re.I)
LANGUAGES = {"nl": "nl", "dut": "nl", "nld": "nl", "en": "en", "eng": "en"}
LONGEST = 500  # characters of a title or another field that is kept


def describe(metadata: dict, source: HarvestSource, today: datetime.date | None = None) -> dict:
    """Title, year, language and licence of a Dublin Core record, if it may be used.

    Raises:
        Refused: ``embargo``, ``closed_access`` or ``access_unknown``.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    rights, end = _rights(metadata), embargo_end(metadata)
    if end and end > today.isoformat():
        raise Refused("embargo")
    if re.search(r"embargoed\s*access", rights, re.I) and not end:
        raise Refused("embargo")
    if CLOSED.search(rights):
        raise Refused("closed_access")
    if not (OPEN.search(rights) or end or source.assume_open):
        raise Refused("access_unknown")
    years = [
        int(year) for value in _values(metadata, "date") for year in re.findall(r"\b(?:19|20)\d\d\b", value)
    ]
    languages = [
        LANGUAGES.get(value.lower().strip()[:3].rstrip("-_")) for value in _values(metadata, "language")
    ]
    licence = re.search(
        r"https?://creativecommons\.org/[\w/.-]+|\bCC[ -]BY[\w.-]*(?: \d\.\d)?|\bCC0\b", rights
    )
    return {
        "title": next(iter(_values(metadata, "title")), ""),
        "year": min(years) if years else None,
        "language": next(filter(None, languages), None),
        "licence": licence[0] if licence else "open access, all rights reserved",
        "embargo": end,
    }


def embargo_end(metadata: dict) -> str | None:
    """The last day of an embargo, ``YYYY-MM-DD``, or None; of a year or a month alone it is the last day."""
    values = [_rights(metadata), *_values(metadata, "date")]
    ends = [end + "-12-31"[len(end) - 4 :] for value in values for end in EMBARGO.findall(value)]
    return max(ends, default=None)


def _rights(metadata: dict) -> str:
    return " | ".join(_values(metadata, "rights") + _values(metadata, "accessRights"))


def _values(metadata: dict, name: str) -> list[str]:
    return [
        str(value).strip()[:LONGEST] for value in metadata.get(name) or [] if value and str(value).strip()
    ]


def addresses(metadata: dict) -> Iterator[str]:
    """The web addresses of a record, those that end like a file first."""
    found = [value for name in ("identifier", "relation", "source") for value in _values(metadata, name)]
    found = [value for value in found if re.match(r"https?://", value)]
    yield from sorted(dict.fromkeys(found), key=lambda url: not url.lower().endswith((".pdf", ".txt")))
