"""The examples in ``cases/``, of invented people and in own words: each comes out right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from conf.schema.preprocess import RedactConfig
from data_prep.boilerplate import drop_boilerplate
from data_prep.characters import DAMAGED_KIND, normalise, repair, settle_control
from data_prep.hyphens import join_cut_words
from data_prep.redact import redact

CASES = Path(__file__).parent / "cases"


def lines(name: str) -> list[str]:
    return [line for line in (CASES / name).read_text(encoding="utf-8").splitlines() if line[:2] != "# "]


@pytest.mark.parametrize("case", lines("covers.tsv"))
def test_people_of_a_cover_are_gone_from_the_whole_work(case: str) -> None:
    cover, gone = case.split("\t")
    text = "Dr. Persoon, V. in 't Proef and Şahin, with 412345 and 423456, wrote about the market of 2010."
    result, _ = redact([cover, "The first lines of a text.", text], RedactConfig())
    assert not [word for word in gone.split(", ") if word in "\n".join(result)]
    assert "wrote about the market of 2010." in result[2]


@pytest.mark.parametrize("case", lines("emails.txt"))
def test_addresses_are_gone(case: str) -> None:
    (result,), found = redact([case.replace("\\n", "\n")], RedactConfig())
    assert found == {"e-mail": 1} and "persoon" not in result and result.startswith("mail [e-mail]")


@pytest.mark.parametrize("case", lines("phones.txt"))
def test_telephone_numbers_are_gone(case: str) -> None:
    (result,), found = redact([case], RedactConfig())
    assert found == {"phone": 1} and not any(map(str.isdigit, result))


@pytest.mark.parametrize("case", lines("redaction-kept.txt"))
def test_ordinary_figures_stay(case: str) -> None:
    assert redact([case], RedactConfig()) == ([case], {})


@pytest.mark.parametrize("case", lines("good-text.txt"))
def test_correct_text_stays(case: str) -> None:
    assert [normalise(block) for block in repair([case], Counter())] == [case]


@pytest.mark.parametrize("case", lines("kept-paragraphs.txt"))
@pytest.mark.parametrize("place", [0, 10, 19])
def test_ordinary_paragraphs_stay(case: str, place: int) -> None:
    blocks = ["An ordinary block of words. " * 8] * 20
    blocks[place] = case
    assert not any(drop_boilerplate(blocks))


@pytest.mark.parametrize("case", lines("hyphens.txt"))
def test_hyphens_at_the_end_of_a_line(case: str) -> None:
    raw, held = case.split("\t")
    assert " ".join(join_cut_words(raw.split(" | "), set())) == held


@pytest.mark.parametrize("case", lines("control-characters.tsv"))
def test_control_characters(case: str) -> None:
    raw, held = case.split("\t")
    counts: Counter[str] = Counter()
    (result,) = settle_control([raw.encode().decode("unicode_escape")], counts)
    if held.startswith("counted as damaged"):
        assert counts[DAMAGED_KIND] == 2 and "dierent" not in result and "eecient" not in result
    elif "white space or a line break" in held:
        assert result.split() == held.partition(",")[0].split() + raw.partition("\\x0b")[2].split()
    else:
        assert result == held
