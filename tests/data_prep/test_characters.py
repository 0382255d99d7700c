"""Characters: what is garbled is set right, what is right stays, what is lost is counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.schema.preprocess import CleanConfig
from data_prep.characters import CONTROL, REPLACEMENT, normalise, repair, settle_control
from data_prep.clean import clean

GOOD = (
    "Er nannte es “Spaß” und “Fleiß”.",
    "het kopje “CAFÉ” en “RENÉ”",
    "PRIVÉ–PUBLIEK en ZOË– BELGIË–NEDERLAND",
    "a surface of 10 Å² and 20 Å³",
    "“IRMÃ” e «MAÇÃ»; AMANHÃ…",
    "SØREN Ø’s, KØBENHAVN Æ™",
    "“SJÖ” HÖ… “FRÅGÅ”",
    "prix “À LA CARTE”, VOILÀ… NAÏVETÉ™",
    "El NIÑO” y “ESPAÑA” – “SÃO”",
    "“Ð” and Þ» in Old English",
    "Ã is a letter",
)
PROSE = "Naïef is de café-eigenaar niet, zei één van de coördinatoren in België: “het was zo’n mooie façade”."


def garble(text: str) -> str:
    """UTF-8 read as Windows-1252, as browsers do it: the five bytes that it has not are taken as Latin-1."""
    return "".join(
        char if (char := bytes([byte]).decode("cp1252", "ignore")) else chr(byte) for byte in text.encode()
    )


@pytest.mark.parametrize("text", GOOD)
def test_correct_text_stays_as_it_is(text: str) -> None:
    counts: Counter[str] = Counter()
    assert repair([text], counts) == [text] and not counts.total()
    assert repair([garble(PROSE), PROSE, text], Counter())[1:] == [PROSE, text]


@pytest.mark.parametrize("times", [1, 2])
def test_a_garbled_work_is_set_right(times: int) -> None:
    text = PROSE
    for _ in range(times):
        text = garble(text)
    counts: Counter[str] = Counter()
    assert repair([text, "plain", text], counts) == [PROSE, "plain", PROSE] and counts["mojibake"] > 0


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac_roman", "cp437"])
@pytest.mark.parametrize(
    "text",
    [
        "Eén café in de coöperatie; “België” – naïeve ideeën",
        "Müller’s Straße in Größe",
        "Zoë’s choice, façade",
    ],
)
def test_what_other_encodings_made_of_a_text_is_undone(text: str, encoding: str) -> None:
    garbled = text.encode().decode(encoding, "replace")
    block, _ = repair([garbled, "A block of ASCII."], Counter())
    assert normalise(block) == text


@pytest.mark.parametrize(
    "text", ["a √n rate and √(x²+y²)", "x ≥ √2 ‚quoted’", "Γ(α) and ΓΔ", "├── folder", "²√∂"]
)
def test_mathematics_and_lines_of_boxes_are_not_garbled(text: str) -> None:
    assert repair([text], Counter()) == [text]


def test_a_garbled_block_in_a_good_work_is_set_right_alone() -> None:
    assert repair([PROSE, garble(PROSE), *GOOD], Counter()) == [PROSE, PROSE, *GOOD]


@given(
    st.lists(
        st.sampled_from(
            ["CAFÉ", "RENÉ", "ZOË", "SJÖ", "Å", "IRMÃ", "à", "ÉÉN", "Ø", "naïef", "ß", "ÇA", "Ñ"]
        ),
        min_size=1,
    ),
    st.sampled_from(
        ["“{}”", "«{}»", "{}…", "{}– ", "‘{}’", "{}²", "{}™", "{}’s", "({})", "{}º", "{}ª", "»{}«"]
    ),
)
def test_words_in_quotes_and_with_signs_never_change(words: list[str], form: str) -> None:
    text = " ".join(form.format(word) for word in words)
    assert repair([text], Counter()) == [text]


@pytest.mark.parametrize(
    ("raw", "held"),
    [
        ("1990\x961995", "1990–1995"),
        ("the student\x92s choice", "the student’s choice"),
        ("regel een\x0bregel twee", "regel een\nregel twee"),
        ("een\x0ctwee\x85drie", "een\ntwee\ndrie"),
        ("een\x1ctwee\x1ddrie\x1evier\x1fvijf", "een twee drie vier vijf"),
        ("een \x02 twee", "een twee"),
    ],
)
def test_a_control_character_is_what_stood_there(raw: str, held: str) -> None:
    counts: Counter[str] = Counter()
    (found,) = settle_control([raw], counts)
    assert normalise(found) == held and counts.total() and not counts["damaged character"]


def test_letters_that_are_lost_are_counted_and_above_a_share_the_work_is_set_aside() -> None:
    counts: Counter[str] = Counter()
    assert settle_control(["di\x0berent e\x0ecient"], counts) == [f"di{REPLACEMENT}erent e{REPLACEMENT}cient"]
    assert counts == {"damaged character": 2}
    words = "of the people who were in the hospital and not at home with their own family in that year "
    damaged = clean([words * 3 + "e\x0ecient di\x0berent " * 2] * 2, CleanConfig())
    assert damaged.reason == "damaged"
    whole = clean([words * 30 + "e\x0ecient"], CleanConfig())
    assert whole.reason == "" and whole.counts.repairs["damaged character"] == 1


@given(st.text(st.characters(max_codepoint=0x2FF)))
def test_no_control_character_is_left_and_no_word_is_welded(text: str) -> None:
    (found,) = settle_control([text], Counter())
    assert not CONTROL.search(found.replace("\n", ""))
    assert len(found) >= len(CONTROL.sub("", text))
