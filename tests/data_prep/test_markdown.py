"""What a document shows of texts that others wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.markdown import Safe, code, escape, render, shown, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain robots_txt, A-B (c) 1.5", "plain robots_txt, A-B (c) 1.5"),
        ("two\nlines\r\n\tand | pipe", "two lines and \\| pipe"),
        ("<script>x</script> & co", "&lt;script&gt;x&lt;/script&gt; &amp; co"),
        ("*a* _b_ `c` [d](e) ~~f~~", "\\*a\\* \\_b\\_ \\`c\\` \\[d\\](e) \\~\\~f\\~\\~"),
        ("# heading", "\\# heading"),
        ("- item", "\\- item"),
        ("back\\slash", "back\\\\slash"),
        ("family 👩‍👩‍👧 stays", "family 👩‍👩‍👧 stays"),
        ("evil\u202etxt\u2066.exe\x00\x1b[31m\ud800", "eviltxt.exe\\[31m"),
        ("قانون", "\u2068قانون\u2069"),
    ],
)
def test_a_text_shows_itself_and_nothing_else(text: str, expected: str) -> None:
    assert escape(text) == expected
    assert escape(text).encode()


def test_values() -> None:
    values = [None, "", True, False, 1234567, 0.000123456789, [], {}, {"b_": 2, "a": 1000}, Safe("**x**")]
    assert [shown(value) for value in values] == [
        "unknown", "unknown", "yes", "no", "1,234,567", "0.000123457", "none", "none", "a 1,000, b\\_ 2",
        "**x**",
    ]  # fmt: skip
    assert code("a`b") == "`a'b`" and code(None) == "unknown"
    assert table([("a|b", 1)], ("x", "y")) == "| x | y |\n| --- | --- |\n| a\\|b | 1 |"


def test_a_template_escapes_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("{{ x }} {{ y }}\n\n\n\n{{ z }}\n", encoding="utf-8")
    assert render(path, x="<b>", y=Safe("<i>"), z=5000) == "&lt;b&gt; <i>\n\n5,000\n"
    with pytest.raises(Exception, match="z"):
        render(path, x="", y="")
