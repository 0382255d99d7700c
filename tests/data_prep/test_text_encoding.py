"""Files that are not UTF-8: read where the evidence says how, and refused where nothing fits."""

from __future__ import annotations

from collections import Counter

import pytest

from data_prep.raw import Unreadable
from data_prep.text_encoding import OTHER_KIND, WRONG_KIND, decoded

TEXT = (
    "Eén café in de coöperatie: ‘België’ en “Curaçao” – naïeve ideeën; € 5 voor Zoë, façade, reünie. "
    "ENQUÊTE in Ångström … über Straße, São Paulo, señor.\n"
) * 3
PLAIN = TEXT.translate(str.maketrans("‘’“”–€…", "''\"\"-e."))
ASCII = "A text of plain words, and of nothing else. " * 20


@pytest.mark.parametrize(
    ("text", "encoding", "counted"),
    [
        (TEXT, "utf-8", 0),
        (TEXT, "utf-8-sig", 0),
        (TEXT, "utf-16", 1),
        (TEXT, "utf-16-le", 1),
        (TEXT, "utf-16-be", 1),
        (TEXT, "utf-32", 1),
        (TEXT, "cp1252", 1),
        (TEXT, "mac_roman", 1),
        (PLAIN, "latin-1", 1),
        (PLAIN, "cp850", 1),
        ("He said “no”, and it’s – fine. " * 9, "cp1252", 1),
    ],
)
def test_a_file_is_read_in_its_encoding(text: str, encoding: str, counted: int) -> None:
    counts: Counter[str] = Counter()
    assert decoded(text.encode(encoding), counts) == text
    assert counts[OTHER_KIND] == counted


@pytest.mark.parametrize(
    ("data", "held"),
    [
        (ASCII.encode() + b"caf\xe9", ASCII + "café"),
        (TEXT.encode() + b"caf\xe9 co\xf6p", TEXT + "café coöp"),
        (TEXT.encode() + TEXT.encode("cp1252") + TEXT.encode(), TEXT * 3),
        (ASCII.encode() + b"\0" * 500, ASCII),
        (ASCII.encode() + b"\x1a", ASCII),
        (ASCII.encode() + b"se\0ries", ASCII + "se\0ries"),
    ],
)
def test_some_wrong_bytes_cost_no_work(data: bytes, held: str) -> None:
    counts: Counter[str] = Counter()
    assert decoded(data, counts) == held
    assert bool(counts[WRONG_KIND]) == any(byte >= 0x80 for byte in data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(range(128, 256)) * 30, "not_utf8"),
        ("日本語のテキストです。".encode("shift_jis") * 30, "not_utf8"),
        ("Это текст на русском".encode("koi8-r") * 30, "not_utf8"),
        ("Zażółć gęślą jaźń".encode("cp1250") * 30, "not_utf8"),
        (b"caf\xe9", "not_utf8"),
        (b"binary \0 data " * 100, "binary"),
        (bytes(range(256)) * 30, "binary"),
    ],
)
def test_what_fits_no_encoding_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decoded(data, Counter())
