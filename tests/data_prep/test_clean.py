import time
from collections import Counter

import pytest

from conf.schema.preprocess import CleanConfig, QualityConfig
from data_prep.characters import normalise, repair
from data_prep.clean import clean
from data_prep.language import identify
from data_prep.quality import reason_to_drop
from data_prep.text_layout import text_blocks
from tests.data_prep.conftest import SAMPLE

NL = (
    "De wachtlijst is in de loop van het jaar langer geworden omdat er meer mensen zijn verwezen dan er "
    "konden worden geholpen, en dat is voor een ziekenhuis niet vreemd maar wel een probleem voor wie wacht."
)
EN = (
    "The waiting list grew in the course of the year because more people were referred than could be helped, "
    "and that is not strange for a hospital but it is a problem for those who wait at home with their pain."
)
DE = "Die Liste ist im Laufe des Jahres länger geworden, und das ist nicht gut für die Menschen auf ihr."


def test_a_block_of_24_words_goes_and_of_25_stays():
    words = EN.split()
    result = clean([" ".join(words[:24]), " ".join(words[:25]), NL, EN], CleanConfig())
    assert len(result.blocks[0].split()) == 25
    assert result.counts.dropped == {"short": 1}


@pytest.mark.parametrize(
    ("text", "language"), [(NL, "nl"), (EN, "en"), (DE * 3, "other"), ("1 2 3 x y z", "other")]
)
def test_language(text, language):
    assert identify(text) == language


def test_languages_of_the_sample():
    found = {path.stem: identify(path.read_text().replace("\\n", "\n")) for path in SAMPLE.glob("*.txt")}
    dutch = {"02", "04", "06", "08", "10", "12", "14"}
    assert {name for name, language in found.items() if language == "nl"} == {
        n for n in found if n[:2] in dutch
    }
    assert set(found.values()) == {"nl", "en"}


@pytest.mark.parametrize("original", ["café", "één", "naïef — “zo” ’t", "€ 5 … ü", "Ångström", "£5"])
def test_mojibake_is_undone_and_good_text_stays(original):
    counts = Counter()
    assert repair([original], counts) == [original] and not counts.total()
    garbled = original.encode().decode("cp1252", "surrogateescape")
    if not any(0xD800 <= ord(char) <= 0xDFFF for char in garbled):
        assert repair([garbled], counts) == [original]
        assert counts["mojibake"] == sum(ord(char) > 127 for char in original)


def test_characters_that_no_tokenizer_gives_back_are_replaced():
    assert normalise("a\u2581b\u00adc\u200bd\x00\x01  e\u00a0 f \n\n g ") == "a_bcd e f\ng"
    counts = Counter()
    assert repair(["ﬁnaal eﬃciënt"], counts) == ["finaal efficiënt"] and counts == {"ligature": 2}
    assert normalise("e\u0301") == "é"


def test_literal_line_breaks_become_real_ones():
    assert text_blocks(b"een\\ntwee\r\n\n  \ndrie\n") == ["een\ntwee", "drie"]


def test_boilerplate_and_references():
    contents = "Table of Contents\n1 Introduction ........ 3\n2 Theory ........ 7\n3 Method ........ 12"
    cover = "A title\nStudent name: Voorbeeld Persoon\nSupervisor: dr. Iemand Anders\nRotterdam, 2020"
    declaration = f"The copyright of the master thesis rests with the author. {EN}"
    references = ["References", f"{EN} (2001). Journal of Things, 3(2), 11-22."]
    blocks = [cover, contents, declaration, NL, EN, NL.replace("jaar", "uur"), EN.upper(), *references]
    result = clean(blocks, CleanConfig(references=True))
    assert result.counts.dropped == {"cover": 1, "contents": 1, "declaration": 1, "references": 2}
    assert clean(blocks, CleanConfig(boilerplate=False, min_block_tokens=0)).counts.dropped == {}


RUNS = [
    "a",
    "A",
    "1",
    "0",
    ".",
    ". ",
    "-",
    "_",
    "é",
    "i",
    "1.",
    "1 ",
    "1-",
    "+31 (0)",
    "AB12",
    "(",
    "(a",
    "{a",
    "{a,",
]
RUNS += [
    "@",
    "a@",
    "a@a.",
    "(at)",
    "…",
    "Ã©",
    "\u0316\u0301",
    "student-",
    "student no.",
    "ANR.",
    "BSN 1",
    "by (",
    "by\n",
]
RUNS += [
    "a at ",
    "a at b dot ",
    "a_at_",
    "[a,",
    "[a,b]@",
    '"a ',
    "a-\n",
    "02/555.",
    "(415) ",
    "NL 91 ",
    "3011 A",
    "straat 1 ",
]
RUNS += [
    "1 A Street ",
    "A 1, 3011 AB ",
    "&token=",
    "eyJaaaaaaaa.",
    "password: 1",
    "0000-",
    "sharepoint.com/?",
    "Dr. A. ",
]
RUNS += [
    "Dr. A. Beek\n",
    "© A ",
    "adres: a ",
    "woonachtig ",
    "birth: 1 ",
    "account 1",
    "85.07.30-",
    "student 4123",
    "A.-",
]


@pytest.mark.parametrize("run", RUNS)
def test_a_long_run_takes_time_in_proportion_to_its_length(run):
    text = (run * 50_000)[:50_000]
    start = time.process_time()
    clean([f"Look at {text} end 12", "contents 1"], CleanConfig())
    assert time.process_time() - start < 1  # a hundredth is usual; what grows with the square takes many


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (EN, "too_short"),
        (" ".join([EN, NL] * 3), ""),
        ("a b c " * 100, "mean_word_length"),
        ("Donaudampfschifffahrtsgesellschaft " * 60, "mean_word_length"),
        ("∑∫√≈x ∂y≤≥z∞ " * 60, "symbols"),
        ("2019 1234 5678 " * 60, "digits"),
        ("the same line of text here\n" * 60, "repetition"),
    ],
)
def test_quality_rules_have_a_reason_each(text, reason):
    assert reason_to_drop(text, QualityConfig()) == reason
    off = QualityConfig(**dict.fromkeys(vars(QualityConfig())))
    assert reason_to_drop(text, off) == ""


def test_marks_upon_a_letter_are_normalised_and_none_is_lost():
    assert normalise("e" + "\u0301\u0323") == "\u1eb9\u0301"
    assert sorted(normalise("x" + "\u0301\u0323" * 100)) == sorted("x" + "\u0301\u0323" * 100)


def people(count):
    """Labelled names, each of two words of its own."""
    letters = "abcdefghijkl"
    names = [f"A{x}{y}{z}" for x in letters for y in letters for z in letters][:count]
    return "\n".join(f"Author: {name} Person" for name in names)


def test_many_names_on_a_cover_cost_one_search_and_too_many_cost_the_work():
    text = " ".join(f"{EN} Aaaa Person" for _ in range(2_500))  # 0.5 MB
    start = time.process_time()
    result = clean([people(1000), text], CleanConfig(boilerplate=False))
    assert time.process_time() - start < 4  # one search for each name takes twice that
    assert result.counts.redactions["name"] == 3_500
    result = clean([people(1001), EN], CleanConfig())
    assert (len(result.blocks), result.reason) == (2, "too_many_names")
