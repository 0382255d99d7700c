"""The layout of text files: EUR's line breaks, hard-wrapped paragraphs, and what only looks like either."""

from __future__ import annotations

import random
import re
import textwrap
from collections import Counter

import pytest

from data_prep.text_layout import text_blocks
from tests.data_prep.conftest import SAMPLE

PARAGRAPHS = [
    line.replace("\\n", " ")
    for path in sorted(SAMPLE.glob("*.txt"))[:4]
    for line in path.read_text().splitlines()
    if len(line) > 300
]


@pytest.mark.parametrize("width", [60, 72, 80, 90, 100])
@pytest.mark.parametrize("indent", ["", "    "])
def test_a_hard_wrapped_file_has_its_paragraphs_again(width: int, indent: str) -> None:
    wrapped = [textwrap.fill(text, width, initial_indent=indent) for text in PARAGRAPHS]
    counts: Counter[str] = Counter()
    blocks = text_blocks("\n\n".join(["Chapter 1", *wrapped]).encode(), counts)
    assert [" ".join(block.split()) for block in blocks] == ["Chapter 1", *PARAGRAPHS]
    assert not any("\n" in block for block in blocks)
    assert counts["line joined"] == sum(text.count("\n") for text in wrapped)


def test_lines_with_an_empty_line_between_them_are_paragraphs_again() -> None:
    wrapped = [textwrap.fill(text, 80).replace("\n", "\n\n") for text in PARAGRAPHS]
    blocks = text_blocks("\n\n\n".join(wrapped).encode())
    assert " ".join(" ".join(blocks).split()) == " ".join(PARAGRAPHS)
    assert all(len(block) > 300 for block in blocks)
    spoken = "\n\n".join(["Respondent: I do not think so.", "Interviewer: why is that?", "Yes."] * 9)
    assert text_blocks(spoken.encode()) == spoken.split("\n\n")


def test_one_long_line_or_many_tables_hide_no_paragraphs() -> None:
    table = "\n".join(["Growth      0.12    0.33    120"] * 4)
    wrapped = [textwrap.fill(text, 80) for text in PARAGRAPHS]
    text = "\n\n".join(f"{paragraph}\n\n{table}" for paragraph in wrapped)
    blocks = text_blocks(f"{text}\n\nhttps://example.org/{'x' * 200}\n".encode())
    assert blocks[:-1:2] == PARAGRAPHS and set(blocks[1:-1:2]) == {table}


def test_a_cut_word_loses_its_hyphen_where_the_work_has_the_word_whole() -> None:
    text = textwrap.fill("de tekens van de regels staan in dit bestand vol op zestig plaatsen " * 9, 62)
    blocks = text_blocks(text.replace("tekens van", "teke-\nns van", 1).encode())
    assert "de tekens van" in blocks[0] and "-" not in blocks[0]
    blocks = text_blocks(text.replace("tekens van", "zo-\nns van", 1).encode())
    assert "de zo-ns van" in blocks[0].replace("\n", " ")


def broken_anywhere(text: str) -> str:
    """Lines that end at no margin: after two to fourteen words."""
    generator, words, lines = random.Random(len(text)), text.split(), []
    while words:
        count = generator.randrange(2, 15)
        lines.append(" ".join(words[:count]))
        words = words[count:]
    return "\n".join(lines)


@pytest.mark.parametrize("between", ["\n\n", "\n"])
@pytest.mark.parametrize(
    "form",
    [
        broken_anywhere,
        lambda text: re.sub(r"([.;,]) ", r"\1\n", text),
        lambda text: re.sub(r"\. ", ".\n", text),
        lambda text: textwrap.fill(text, 32),
        lambda text: textwrap.fill(text, 150),
    ],
    ids=["anywhere", "clauses", "sentences", "narrow", "wide"],
)
def test_lines_that_end_anywhere_lose_no_word(form, between: str) -> None:
    texts = [text for text in PARAGRAPHS if "-" not in text][:12]
    assert len(texts) > 5
    blocks = text_blocks(between.join(map(form, texts)).encode())
    assert " ".join(" ".join(blocks).split()) == " ".join(texts)
    assert sum(len(block.split()) < 25 for block in blocks) <= 1


def test_pages_end_with_a_form_feed() -> None:
    pages = [textwrap.fill(text, 72) for text in PARAGRAPHS]
    for between in ("\n\n\f", "\f\n\n", "\n\f\n"):
        blocks = text_blocks(between.join(pages).encode())
        assert [" ".join(block.split()) for block in blocks] == PARAGRAPHS


def test_a_poem_a_list_and_eur_s_own_lines_stay_as_they_are() -> None:
    poem = "een regel\nnog een korte\nen deze dan\n\nhet slot\nvan het gedicht\nis hier"
    assert text_blocks(poem.encode()) == [line for line in poem.split("\n") if line]
    for path in SAMPLE.glob("*.txt"):
        lines = path.read_text().splitlines()
        assert text_blocks(path.read_bytes()) == [line.replace("\\n", "\n") for line in lines if line]


@pytest.mark.parametrize(
    "text",
    [
        r"the gradient \nabla f and \alpha in the model",
        r"a frequency \nu with \alpha and \beta",
        r"\noindent This begins a text with \newline in it",
        r"saved in C:\new\notes.txt on the server",
        r"on \\server\new\names there is a file",
        "it prints `hello\\n`, as C does",
        r"\textbf{x} \emph{y} \cite{z} and \not here",
    ],
)
def test_a_backslash_and_n_of_something_else_is_no_line_break(text: str) -> None:
    assert text_blocks(text.encode()) == [text]


def test_a_path_in_a_work_of_eur_s_layout_stays_whole() -> None:
    assert text_blocks(rb"de regel is\nlang en C:\new\data is\neen map\nright here") == [
        "de regel is\nlang en C:\\new\\data is\neen map\nright here"
    ]
