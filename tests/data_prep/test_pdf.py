import pytest

pytest.importorskip("pypdfium2")

from data_prep import pdf as module
from data_prep.pdf import extract
from data_prep.raw import Unreadable
from tests.data_prep.pdf_files import encrypted, pdf

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


def test_a_bomb_ends_with_its_child(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 20)
    bomb = pdf([["boom " * 2_000_000]], compress=True)
    assert len(bomb) < 100_000
    try:
        blocks = extract(bomb)
    except Unreadable as reason:
        assert str(reason) in ("pdf_too_large", "pdf_too_slow", "pdf_damaged", "text_too_long")
    else:
        assert sum(map(len, blocks)) <= 11_000_000
