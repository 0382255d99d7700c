"""Charts as SVG for the HTML pages of the suite: the report of a dataset and the report of the queue.

    bars(title, labels, values, unit)          one upright bar per label, for days or bins
    ranked(title, labels, values, unit)        one lying bar per label with its number, for names
    lines(title, labels, series, axis_ends)    one or two lines over the same labels
    curves(title, series, axis)                one or two lines through points, for what is logged by step

A chart has no colours: `templates/page.html` gives them, for light and dark. Texts are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 220  # of bars and lines, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 28  # margins of bars and lines
MOST_LABELS = 10  # under the horizontal axis
MOST_POINTS = 600  # of one curve
ROW = 30  # height of a lying bar's row
CHARACTER = 13  # room for a character of a name on a phone, where the text is larger
LONGEST_NAME = 24  # characters of a lying bar's name
NUMBERS = 110  # room to the right of a lying bar


def axis_end(largest: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten, at or above the largest value."""
    if largest <= 0:
        return 1.0
    power = 1.0
    while power < largest:
        power *= 10
    while power / 10 >= largest:
        power /= 10
    return next(top for top in (power / 5, power / 2, power) if top >= largest)


def short_number(value: float) -> str:
    """A number of an axis: `1.5k`, `20M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def bars(title: str, labels: Sequence[str], values: Sequence[float], unit: str) -> Markup:
    """An upright bar for each label; the exact value is the bar's tooltip.

    Args:
        title: for screen readers.
        labels: under the axis, one per bar.
        values: not negative.
        unit: of the values, for the tooltip.
    """
    top = axis_end(max(values, default=0))
    parts = _frame(title, labels, [short_number(top * part / 4) for part in range(5)])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(values))
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        height = (HEIGHT - BOTTOM - TOP) * value / top
        width = min(step * 0.7, 48)
        x = LEFT + step * (number + 0.5) - width / 2
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{escape(label)}: {value:,.1f} {escape(unit)}</title></rect>'
        )
    return _closed(parts)


def ranked(title: str, labels: Sequence[str], values: Sequence[float], unit: str) -> Markup:
    """A lying bar for each label, with its value as a number behind it; the tooltip has the whole label.

    Args:
        title: for screen readers.
        labels: of any length; longer ones are cut to `LONGEST_NAME` characters.
        values: not negative.
        unit: of the values, for the tooltip.
    """
    names = [_cut(label) for label in labels]
    left = CHARACTER * max(map(len, names), default=0) + 16
    room = WIDTH - left - NUMBERS
    largest = max(values, default=0) or 1
    parts = _opening(title, ROW * len(names))
    for number, (name, label, value) in enumerate(zip(names, labels, values, strict=True)):
        y, width = ROW * number, max(2.0, room * value / largest)
        parts.append(f'<text x="{left - 10}" y="{y + 21}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect class="bar" x="{left}" y="{y + 5}" width="{width:.1f}" height="{ROW - 10}" rx="2">'
            f"<title>{escape(label)}: {value:,} {escape(unit)}</title></rect>"
        )
        parts.append(f'<text x="{left + width + 8:.1f}" y="{y + 21}">{value:,}</text>')
    return _closed(parts)


def lines(
    title: str,
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    axis_ends: Sequence[tuple[float, str, str]],
) -> Markup:
    """One line per series with a gap where a value is missing.

    Args:
        title: for screen readers.
        labels: under the axis, one per point.
        series: name and values; at most two, drawn in the page's two colours.
        axis_ends: possible ends of the axis as (value, text, text of its half), ascending; the first one that
            no value exceeds is used.
    """
    largest = max((v for _, values in series for v in values if v is not None), default=0)
    top, whole, half = next((item for item in axis_ends if item[0] >= largest), axis_ends[-1])
    parts = _frame(title, labels, ["0", half, whole])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    for index, (name, values) in enumerate(series):
        unbroken: list[list[str]] = [[]]
        for number, value in enumerate(values):
            if value is None:
                unbroken.append([])
                continue
            x = LEFT + step * (number + 0.5)
            y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(1.0, value / top)
            unbroken[-1].append(f"{x:.1f},{y:.1f}")
            parts.append(
                f'<circle class="s{index}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escape(labels[number])} {escape(name)}: {value:,.0f} s</title></circle>"
            )
        parts += [
            f'<polyline class="s{index}" points="{" ".join(points)}"/>'
            for points in unbroken
            if len(points) > 1
        ]
    return _closed(parts)


def curves(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], axis: str) -> Markup:
    """One or two lines through points, both axes from the smallest to the largest value.

    Args:
        title: for screen readers.
        series: name and (x, y) of each point, x ascending; at most two, drawn in the page's two colours.
        axis: what x is.
    """
    points = [point for _, line in series for point in line if math.isfinite(point[1])]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    if low_y == high_y:
        low_y, high_y = low_y - (abs(low_y) or 1.0) / 2, high_y + (abs(high_y) or 1.0) / 2
    ends = [short_number(float(f"{low_y + (high_y - low_y) * part / 2:.3g}")) for part in range(3)]
    labels = [f"{axis} {low_x:g}", *([f"{high_x:g}"] if high_x > low_x else [])]
    parts = _frame(title, [], ends)
    for text, x, anchor in zip(labels, (LEFT, WIDTH - RIGHT), ("start", "end"), strict=False):
        parts.append(f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(text)}</text>')

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x) if high_x > low_x else 0.5
        up = (y - low_y) / (high_y - low_y)
        return LEFT + (WIDTH - LEFT - RIGHT) * across, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * up

    for index, (name, line) in enumerate(series):
        finite = [point for point in line if math.isfinite(point[1])]
        kept = finite[:: max(1, -(-len(finite) // MOST_POINTS))]
        kept += finite[-1:] if finite[-1:] != kept[-1:] else []
        shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in kept))
        parts.append(f'<polyline class="s{index}" points="{shown}"/>')
        for x, y in kept if len(kept) <= 40 else []:
            cx, cy = place(x, y)
            parts.append(
                f'<circle class="s{index}" cx="{cx:.1f}" cy="{cy:.1f}" r="3">'
                f"<title>{escape(name)}, {escape(axis)} {x:g}: {y:.5g}</title></circle>"
            )
    return _closed(parts)


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST_NAME else f"…{label[1 - LONGEST_NAME :]}"


def _opening(title: str, height: int) -> list[str]:
    return [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]


def _closed(parts: list[str]) -> Markup:
    return Markup("\n".join([*parts, "</svg>"]))


def _frame(title: str, labels: Sequence[str], axis: Sequence[str]) -> list[str]:
    """The opening, the grid with its numbers, and at most `MOST_LABELS` labels under it."""
    parts = _opening(title, HEIGHT)
    floor = HEIGHT - BOTTOM
    for number, text in enumerate(axis):
        y = floor - (floor - TOP) * number / (len(axis) - 1)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    every = max(1, -(-len(labels) // MOST_LABELS))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    for number, label in enumerate(labels):
        if number % every == 0:
            x = LEFT + step * (number + 0.5)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>')
    return parts
