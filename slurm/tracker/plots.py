"""Small charts as SVG text, drawn with the page's own colours so that they follow light and dark."""

from collections.abc import Sequence
from html import escape

WIDTH = 640
HEIGHT = 220
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 28
# Of a lying bar: its row, and the room for its name.
ROW, NAMES = 30, 180


def nice_top(largest: float) -> float:
    """The axis' end: 1, 2 or 5 times a power of ten, at or above the largest value."""
    if largest <= 0:
        return 1.0
    power = 1.0
    while power < largest:
        power *= 10
    while power / 10 >= largest:
        power /= 10
    return next(top for top in (power / 5, power / 2, power) if top >= largest)


def figure(value: float) -> str:
    """A short number for an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def opening(title: str, height: int) -> list[str]:
    return [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]


def frame(title: str, labels: Sequence[str], axis: Sequence[str]) -> list[str]:
    """The opening, the grid with its figures, and the labels under the bars."""
    parts = opening(title, HEIGHT)
    floor = HEIGHT - BOTTOM
    for number, text in enumerate(axis):
        y = floor - (floor - TOP) * number / (len(axis) - 1)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    # No more than ten labels fit.
    every = max(1, -(-len(labels) // 10))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    for number, label in enumerate(labels):
        if number % every == 0:
            x = LEFT + step * (number + 0.5)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>')
    return parts


def bars(title: str, labels: Sequence[str], values: Sequence[float], unit: str) -> str:
    """A bar for each label; the exact value is the bar's tooltip."""
    top = nice_top(max(values, default=0))
    parts = frame(title, labels, [figure(top * part / 4) for part in range(5)])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(values))
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        height = (HEIGHT - BOTTOM - TOP) * value / top
        width = min(step * 0.7, 48)
        x = LEFT + step * (number + 0.5) - width / 2
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{escape(label)}: {value:,.1f} {escape(unit)}</title></rect>'
        )
    return "\n".join([*parts, "</svg>"])


def lying_bars(title: str, labels: Sequence[str], values: Sequence[float], unit: str) -> str:
    """A row for each label, whose names may be long; the exact value is the bar's tooltip."""
    parts = opening(title, ROW * len(labels))
    largest = max(values, default=0) or 1
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = ROW * number
        width = max(2, (WIDTH - NAMES - RIGHT) * value / largest)
        parts.append(f'<text x="{NAMES - 10}" y="{y + 21}" text-anchor="end">{escape(label)}</text>')
        parts.append(
            f'<rect class="bar" x="{NAMES}" y="{y + 5}" width="{width:.1f}" height="{ROW - 10}" rx="2">'
            f"<title>{escape(label)}: {value:,} {escape(unit)}</title></rect>"
        )
    return "\n".join([*parts, "</svg>"])


def lines(
    title: str,
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    spans: Sequence[tuple[float, str, str]],
) -> str:
    """One line per series with a gap where a value is missing.

    Args:
        title: For screen readers.
        labels: Under the axis, one per point.
        series: Name and values; at most two, drawn in the page's two colours.
        spans: Possible ends of the axis as (value, text, its half), ascending; the first that fits is used.
    """
    largest = max((v for _, values in series for v in values if v is not None), default=0)
    top, whole, half = next((item for item in spans if item[0] >= largest), spans[-1])
    parts = frame(title, labels, ["0", half, whole])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    for index, (name, values) in enumerate(series):
        points: list[list[str]] = [[]]
        for number, value in enumerate(values):
            if value is None:
                points.append([])
                continue
            x = LEFT + step * (number + 0.5)
            y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(1.0, value / top)
            points[-1].append(f"{x:.1f},{y:.1f}")
            parts.append(
                f'<circle class="s{index}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escape(labels[number])} {escape(name)}: {value:,.0f} s</title></circle>"
            )
        parts += [f'<polyline class="s{index}" points="{" ".join(run)}"/>' for run in points if len(run) > 1]
    return "\n".join([*parts, "</svg>"])
