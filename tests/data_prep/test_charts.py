"""Charts are valid SVG, escape what they show, and end their axes at round numbers."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from data_prep import charts

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<b>&\"'"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.mark.parametrize(
    ("largest", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (4, 5), (7, 10), (10, 10), (4321, 5000)]
)
def test_axes_end_at_round_numbers(largest: float, top: float) -> None:
    assert charts.axis_end(largest) == pytest.approx(top)


def test_every_chart_is_valid_and_escaped() -> None:
    labels = [HOSTILE, "two", "three"]
    upright = parsed(charts.bars(HOSTILE, labels, [1, 0, 3], HOSTILE))
    lying = parsed(charts.ranked(HOSTILE, labels, [1, 0, 3], HOSTILE))
    curves = parsed(charts.lines(HOSTILE, labels, [("a", [1, None, 3]), ("b", [2, 2, 2])], [(5, "5", "2.5")]))
    assert upright.get("aria-label") == lying.get("aria-label") == curves.get("aria-label") == HOSTILE
    assert len(upright.findall(f"{SVG}rect")) == len(lying.findall(f"{SVG}rect")) == 3
    assert len(curves.findall(f"{SVG}circle")) == 5
    assert len(curves.findall(f"{SVG}polyline")) == 1, "a line of one point is no line"


def test_the_longest_bar_is_the_largest_value() -> None:
    svg = parsed(charts.ranked("t", ["a", "b"], [10, 5], "jobs"))
    first, second = (float(rect.get("width")) for rect in svg.findall(f"{SVG}rect"))
    assert first == pytest.approx(2 * second)
    assert [text.text for text in svg.findall(f"{SVG}text")] == ["a", "10", "b", "5"]


def test_nothing_to_show_is_a_chart_too() -> None:
    for svg in (
        charts.bars("t", [], [], "u"),
        charts.ranked("t", [], [], "u"),
        charts.lines("t", [], [], [(1, "1", "")]),
    ):
        assert parsed(svg).tag == f"{SVG}svg"
