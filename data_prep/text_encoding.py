"""The characters of a text file, in whatever encoding it is.

Most files are UTF-8. Others have a byte-order mark, are UTF-8 with a few wrong bytes, or are in an old
encoding of one byte a character. Which one is decided by evidence: in the right encoding the signs beyond
ASCII are letters of a word, quotes or dashes as Dutch, English and their neighbours have them.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter

from data_prep.raw import Unreadable

OTHER_KIND, WRONG_KIND = "file in another encoding", "byte that is not UTF-8"
MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OLD = ("cp1252", "mac_roman", "cp850")  # Windows, old Macintoshes, DOS; the first wins where two are as good
HALF = 0.8  # share of NUL bytes at even or odd places that makes UTF-16 without a mark
SMALLEST = 100  # bytes of a file that can be evidence for an old encoding
MOST_WRONG = 0.01  # NUL bytes with which a file is still text; wrong bytes for each right sign of UTF-8
LEAST_PLAUSIBLE = 0.8  # share of signs in their place that an old encoding must have
# A small letter inside or at the end of a word, a capital at its start or in a word of capitals, quotes
# around words, dashes, signs of money and of units, and a space that keeps words together.
PLAUSIBLE = re.compile(
    r"(?<=[A-Za-zà-ÿ])[à-öø-ÿœšžß]|[à-öø-ÿœšž](?=[a-z])|(?<![A-Za-z])[àéèêëó](?![A-Za-z])"
    r"|[À-ÖØ-ÞŒŠŽ](?=[A-Za-zà-ÿ])|(?<=[A-ZÀ-Þ])[À-ÖØ-ÞŸ]"
    r"|[‘“„«](?=[\wà-ÿ'‘“])|(?<=[\w.,!?;:)])[’”»]|[–—•…€£©®°±§½¼¾×·†™µ\xa0²³]|\x85"
)
BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def decoded(data: bytes, counts: Counter[str]) -> str:
    """The text of a file.

    Args:
        data: the file.
        counts: a file in another encoding, and wrong bytes in one of UTF-8, are counted here.

    Raises:
        Unreadable: ``binary`` (NUL bytes) or ``not_utf8`` (no encoding fits).
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return _marked(data, encoding, counts)
    data = data.rstrip(b"\x00\x1a")  # what old programs put behind the end
    if b"\x00" in data:
        return _with_nuls(data, counts)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _not_utf8(data, counts)


def _marked(data: bytes, encoding: str, counts: Counter[str]) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig":
            return _not_utf8(data.removeprefix(codecs.BOM_UTF8), counts)
        raise Unreadable("not_utf8") from error
    if text.count("\0") > MOST_WRONG * len(text):
        raise Unreadable("binary")
    if encoding != "utf-8-sig":
        counts[OTHER_KIND] += 1
    return text.rstrip("\x00\x1a")


def _with_nuls(data: bytes, counts: Counter[str]) -> str:
    """UTF-16 without its mark, or text with a few NUL bytes, which stay as characters that are lost."""
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        places = data[start::2]
        if len(data) > 20 and places.count(0) >= HALF * len(places):
            counts[OTHER_KIND] += 1
            return (data + b"\0" * (len(data) % 2)).decode(encoding, "replace").rstrip("\x00\x1a")
    if data.count(0) > MOST_WRONG * len(data):
        raise Unreadable("binary")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("binary") from error


def _not_utf8(data: bytes, counts: Counter[str]) -> str:
    """UTF-8 with wrong bytes, which are read as Windows-1252, or a file in an old encoding."""
    text = data.decode("utf-8", "surrogateescape")
    wrong = sum("\udc80" <= char <= "\udcff" for char in text)
    right = sum(not char.isascii() for char in text) - wrong
    if right or (wrong == 1 and len(data) >= SMALLEST):
        text = re.sub("[\udc80-\udcff]+", _as_windows, text)
        if wrong <= max(1, MOST_WRONG * right) or _plausible(text) >= LEAST_PLAUSIBLE:
            counts[WRONG_KIND] += wrong
            return text
    texts = [data.decode(encoding, "replace") for encoding in OLD]
    best = max(texts, key=_plausible)
    if len(data) < SMALLEST or _plausible(best) < LEAST_PLAUSIBLE:
        raise Unreadable("not_utf8")
    counts[OTHER_KIND] += 1
    return best


def _as_windows(match: re.Match[str]) -> str:
    return match[0].encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _plausible(text: str) -> float:
    """The share of the signs beyond ASCII that are in their place."""
    signs = len(BEYOND_ASCII.findall(text))
    return sum(not match[0].isascii() for match in PLAUSIBLE.finditer(text)) / max(signs, 1)
