import itertools
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("pypdfium2")

from conf.errors import InputError
from data_prep.pdf import Child, extract
from data_prep.pdf_child import HEADER
from data_prep.raw import Unreadable
from tests.data_prep.pdf_files import drawn, encrypted, pdf

BODY = "in the loop of this year the list became longer and longer still"


def pages(count):
    subjects = ["ports", "nurses", "trains", "banks", "dikes", "markets", "depots"]
    return [
        [
            "A running title",
            "",
            f"Page on {subjects[n]} begins with a first para-",
            f"graph about {subjects[n]} that fills its line up to the right hand margin",
            "and ends here.",
            "",
            f"A second one on {subjects[n]} uses a self-made thing, a café, and a self-",
            f"made plan for {subjects[n]} which goes on over the page and is long {n}",
            "",
            str(n + 1),
        ]
        for n in range(count)
    ]


def test_blocks_without_page_furniture_and_with_words_made_whole():
    blocks = extract(pdf(pages(5)))
    text = "\n".join(blocks)
    assert "running title" not in text and not any(block.strip().isdigit() for block in blocks)
    assert "paragraph\nabout ports" in text and "self-made\nplan" in text and "café" in text
    assert any(block.startswith("A second one on trains") for block in blocks)


@pytest.mark.parametrize("leading", [10, 12, 13, 13.8, 16])
def test_letters_of_tight_lines_stay_in_their_line(leading):
    lines = [
        "the project goes by people enjoying physiology",
        "Één Ångström Étude gives joy",
        "a third (plain) one",
    ]
    text = "".join(f"({line.translate(str.maketrans({'(': '[', ')': ']'}))}) Tj T*\n" for line in lines)
    blocks = extract(drawn([f"BT /F1 12 Tf {leading} TL 60 700 Td\n{text}ET"]))
    assert blocks == ["\n".join(lines).translate(str.maketrans({"(": "[", ")": "]"}))]


@pytest.mark.parametrize("leading", [12, 16])
def test_raised_and_lowered_characters_keep_the_words_around_them_apart(leading):
    def raised(text, by):
        return f"/F1 7 Tf {by} Ts ({text}) Tj 0 Ts /F1 12 Tf"

    page = (
        f"BT /F1 12 Tf {leading} TL 60 700 Td (physiology by day) Tj T* (As Jones) Tj {raised(12, 5)} "
        f"( wrote, mc) Tj {raised(2, 5)} ( is x) Tj {raised('i', -3)} ( in all cases.) Tj T* (plain) Tj ET"
    )
    assert extract(drawn([page])) == ["physiology by day\nAs Jones12 wrote, mc2 is xi in all cases.\nplain"]


@pytest.mark.parametrize("turn", ["0 -1 1 0", "0 1 -1 0", "1 0 0 1"])
def test_text_that_reads_down_or_up_the_page_stays_whole(turn):
    lines = ["Table 3: statistics of the sample", "Variable Mean Minimum", "Income 1.20 0.10"]
    text = "".join(f"({line}) Tj T*\n" for line in lines)
    blocks = extract(drawn([f"BT /F1 12 Tf 14.4 TL {turn} 300 420 Tm\n{text}ET"], "Helvetica"))
    read = " ".join("\n".join(blocks).split())
    assert all(line in read for line in lines)


def test_a_drop_cap_does_not_draw_the_lines_beside_it_together():
    page = (
        "BT /F1 36 Tf 60 680 Td (T) Tj ET BT /F1 12 Tf 82 697 Td (his stands beside it) Tj ET "
        "BT /F1 12 Tf 82 683 Td (and this does too) Tj ET BT /F1 12 Tf 60 669 Td (not this) Tj ET"
    )
    assert "\n".join(extract(drawn([page]))) == "This stands beside it\nand this does too\nnot this"


def test_a_hyphen_that_stands_for_a_word_stays_and_one_that_cuts_a_word_goes():
    lines = [
        "er zijn welke voor-",
        "en nadelen, die niet vast-",
        "gesteld zijn in short-",
        "and long-term ones",
    ]
    text = " ".join(extract(pdf([lines]))).replace("\n", " ")
    assert text == "er zijn welke voor- en nadelen, die niet vastgesteld zijn in short- and long-term ones"


LEFT = [
    "the first column tells of the", "ports of the country, and how", "they grew in the years after",
    "the war until the crisis came", "and ships were laid up for a", "long time in the old harbour",
    "where nobody came to see the", "rust on their empty hulls.",
]  # fmt: skip
RIGHT = [
    "Another column is about the", "nurses of a hospital in town", "who wrote down what they saw",
    "in the night and gave it to", "those who came after them in", "the morning with coffee and",
    "bread, and so nothing was lost", "of what had happened there.",
]  # fmt: skip


def drawn_at(left: float, top: float, line: str) -> str:
    return f"1 0 0 1 {left} {top} Tm ({line}) Tj "


@pytest.mark.parametrize("by_rows", [True, False])
def test_two_columns_are_read_one_after_the_other(by_rows):
    places = [
        (60, left, 330, right, 700 - 14 * n) for n, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True))
    ]
    if by_rows:
        draw = [drawn_at(x, top, a) + drawn_at(y, top, b) for x, a, y, b, top in places]
    else:
        draw = [drawn_at(x, top, a) for x, a, _, _, top in places]
        draw += [drawn_at(y, top, b) for _, _, y, b, top in places]
    head = drawn_at(60, 740, "A heading over both of the columns of this page, as wide as the page is")
    text = " ".join(extract(drawn([f"BT /F1 12 Tf {head}{''.join(draw)}ET"]))).replace("\n", " ")
    assert " ".join(LEFT) in text and " ".join(RIGHT) in text


def test_a_table_is_read_row_by_row():
    rows = [
        ("Rotterdam", "1.25"),
        ("Schiedam", "0.98"),
        ("Dordrecht", "1.03"),
        ("Delft", "0.77"),
        ("Gouda", "2.1"),
    ]
    draw = "".join(
        drawn_at(60, 700 - 14 * n, name) + drawn_at(330, 700 - 14 * n, value)
        for n, (name, value) in enumerate(rows)
    )
    text = "\n".join(extract(drawn([f"BT /F1 12 Tf {draw}ET"])))
    assert text == "\n".join(f"{name} {value}" for name, value in rows)


@pytest.mark.parametrize("turn", ["0 1 -1 0 100 60", "0 -1 1 0 400 780", "-1 0 0 -1 500 400"])
def test_a_page_that_is_turned_has_its_paragraphs(turn):
    lines = [
        "".join(f"({line}) Tj T*\n" for line in LEFT),
        "T* T*\n",
        "".join(f"({line}) Tj T*\n" for line in RIGHT),
    ]
    blocks = extract(drawn([f"BT /F1 12 Tf 14 TL {turn} Tm\n{''.join(lines)}ET"]))
    assert blocks == ["\n".join(LEFT), "\n".join(RIGHT)]


@pytest.mark.parametrize("tail", [bytes(5000), b"<html>" + b"<p>not found</p>" * 500, b"\n" * 3000])
def test_what_follows_the_end_of_a_pdf_does_not_matter(tail):
    assert extract(pdf(pages(3)) + tail) == extract(pdf(pages(3)))


def test_a_pdf_that_a_mark_goes_before_is_read():
    assert extract(b"\xef\xbb\xbf\r\n" + pdf(pages(1))) == extract(pdf(pages(1)))


def test_a_scanned_pdf_has_no_text():
    with pytest.raises(Unreadable, match="no_text"):
        extract(pdf([[""]]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encrypted(), "pdf_encrypted"),
        (pdf(pages(3))[:900], "pdf_truncated"),
        (b"%PDF-1.4\n" + b"\xff" * 500 + b"%%EOF", "pdf_damaged"),
        (b"no pdf at all", "pdf_damaged"),
        (pdf([["x"]] * 5000), "pdf_too_many_pages"),
    ],
)
def test_each_kind_of_broken_pdf_has_its_reason(data, reason):
    with pytest.raises(Unreadable, match=f"^{reason}$"):
        extract(data)


def test_a_pdf_with_more_text_than_a_work_may_hold_is_not_read_to_its_end():
    with pytest.raises(Unreadable, match="text_too_long"):
        extract(pdf(pages(7)), max_text=500)
    assert extract(pdf(pages(7)), max_text=5000)


def test_what_is_wrong_here_and_not_with_the_work_stops_the_build(tmp_path, monkeypatch):
    (tmp_path / "pypdfium2.py").write_text("raise ImportError('libpdfium.so: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"PDFs cannot be read here: libpdfium\.so: no such file"):
        extract(pdf(pages(1)), child=Child())


@pytest.mark.parametrize(("signal", "reason"), [("KILL", "pdf_killed"), ("XCPU", "pdf_too_slow")])
def test_a_killed_child_does_not_call_the_work_damaged(signal, reason):
    child = Child(["bash", "-c", f"kill -{signal} $$"])
    for _ in range(2):  # the next PDF gets a new child
        with pytest.raises(Unreadable, match=f"^{reason}$"):
            extract(pdf(pages(1)), child=child)


def test_a_lower_limit_of_the_machine_is_kept():
    lower = f"ulimit -v {3 << 20}; ulimit -t 60; exec {sys.executable} -m data_prep.pdf_child"
    question = HEADER.pack(len(pdf(pages(1))), 100_000) + pdf(pages(1))
    child = subprocess.run(["bash", "-c", lower], input=question, capture_output=True, check=True)
    assert b"ports" in child.stdout


def test_a_bomb_ends_with_its_child():
    bomb = pdf([["boom " * 2_000_000]], compress=True)
    assert len(bomb) < 100_000
    try:
        blocks = extract(bomb, child=Child(seconds=20))
    except Unreadable as reason:
        assert str(reason) in ("pdf_too_large", "pdf_too_slow", "pdf_damaged", "text_too_long")
    else:
        assert sum(map(len, blocks)) <= 11_000_000


TEXT = (
    "The night trains of the continent were slow, and the council asked the nurses of the harbour to count "
    "the passengers who boarded each of them between March and June, because nobody believed the figures of "
    "the company that ran them. In the second part we compare the answers of the older respondents with "
    "those of the younger ones; the difference is small but it does not vanish when we control for income."
)


def placed(left, top, text, size=9):
    return f"BT /F1 {size} Tf 1 0 0 1 {left} {top} Tm ({text}) Tj ET\n"


@pytest.mark.parametrize(("count", "width", "shift"), [(2, 48, 0), (2, 48, 5), (3, 30, 0)])
def test_columns_drawn_row_by_row_are_read_one_after_the_other(count, width, shift):
    texts = [TEXT.replace("night", f"night{number}") for number in range(count)]
    columns = [textwrap.wrap(text, width) for text in texts]
    rows = itertools.zip_longest(*columns, fillvalue="")
    drawing = "".join(
        placed(50 + number * 480 // count, 740 - 12 * row - shift * number, line)
        for row, lines in enumerate(rows)
        for number, line in enumerate(lines)
        if line
    )
    found = " ".join(" ".join(extract(drawn([drawing]))).split())
    assert all(text in found for text in texts)


def test_what_is_written_across_a_page_is_no_part_of_its_lines():
    lines = textwrap.wrap(TEXT, 80)
    mark = "q 0.7 0.7 -0.7 0.7 150 250 cm BT /F1 60 Tf 0 0 Td (CONFIDENTIAL) Tj ET Q\n"
    text = "".join(placed(70, 500 - 13 * row, line) for row, line in enumerate(lines))
    for drawing in (text + mark, mark + text):
        blocks = [" ".join(block.split()) for block in extract(drawn([drawing]))]
        assert sorted(blocks) == sorted([TEXT, "CONFIDENTIAL"])


def test_numbers_of_lines_are_no_text():
    lines = textwrap.wrap(TEXT, 40)
    drawing = "".join(
        placed(40, 740 - 13 * row, row + 1, 7) + placed(80, 740 - 13 * row, line)
        for row, line in enumerate(lines)
    )
    assert [" ".join(block.split()) for block in extract(drawn([drawing]))] == [TEXT]


def test_a_paragraph_goes_on_over_the_page_past_its_footnotes():
    lines = textwrap.wrap(TEXT, 80)
    first = "".join(placed(70, 700 - 13 * row, line) for row, line in enumerate(lines[:3]))
    first += placed(70, 90, "________", 8) + placed(70, 78, "1 See Smith [2010] and", 8)
    first += placed(70, 68, "the others.", 8) + placed(280, 40, "1")
    second = "".join(placed(70, 700 - 13 * row, line) for row, line in enumerate(lines[3:]))
    blocks = [" ".join(block.split()) for block in extract(drawn([first, second + placed(280, 40, "2")]))]
    assert blocks[0] == TEXT and "1 See Smith [2010] and the others." in blocks[1:]
