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
    cover, gone = case.replace("\\n", "\n").split("\t")
    text = "Dr. Persoon, V. in 't Proef and Şahin, with 412345 and 423456, wrote about the market of 2010."
    result, _ = redact([*cover.split("\n\n"), "The first lines of a text.", text], RedactConfig())
    assert not [word for word in gone.split(", ") if word in "\n".join(result)]
    assert "wrote about the market of 2010." in result[-1]


@pytest.mark.parametrize("case", lines("subjects.tsv"))
def test_a_subject_on_the_cover_is_nobody_s_name(case: str) -> None:
    cover, subject = case.replace("\\n", "\n").split("\t")
    text = (
        f"In the second part we compare {subject} with the others; {subject} says that little is different."
    )
    assert redact([cover, *[text] * 5], RedactConfig())[0][1:] == [text] * 5


@pytest.mark.parametrize("case", lines("identity.tsv"))
def test_what_tells_who_somebody_is_is_gone(case: str) -> None:
    text, gone = case.replace("\\n", "\n").split("\t")
    (result,), found = redact([text], RedactConfig())
    assert found and not [part for part in gone.split(", ") if part in result]


def test_another_person_of_the_same_surname_stays_in_the_references() -> None:
    cover = "A title\nSupervisor: dr. V. Persoon\nRotterdam"
    others = ["Persoon, T. A. (2010). On markets. T.A. Persoon and A. van Persoon.", "By Persoon, V. (2011)."]
    result, _ = redact([cover, *others], RedactConfig())
    assert result[1] == others[0] and "Persoon" not in result[2]


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
