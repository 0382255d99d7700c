"""Markdown documents from Jinja2 templates, into which no text of a work or of a person can put markup.

    render(Path("data_prep/bundle/templates/datasheet.md"), facts=…)

What a template shows is put on one line and escaped; `Safe` is not escaped again. Numbers get their thousands
separated, None is `unknown`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

UNKNOWN = "unknown"
SHARED = Path(__file__).parent / "templates"
MARKUP = re.compile(r"([\\`*\[\]|~#]|(?<![^\W_])_|_(?![^\W_]))")  # a _ inside a word marks nothing
BEGINS = re.compile(r"(?=[-+=>] |[-=]{2}|\d+[.)] )")  # of a line, what makes it a list, a rule or a heading
JOINERS = "\u200c\u200d"  # shape Persian words and emoji
ISOLATE, POP = "\u2068", "\u2069"  # keep a text's direction from its neighbours (Unicode annex 9)


class Safe(str):
    """Text that is Markdown already."""

    __slots__ = ()


def one_line(value: object) -> str:
    """A text on one line, without control characters, marks of direction and halves of characters."""
    text = "".join(char for char in " ".join(str(value).split()) if char in JOINERS or _is_shown(char))
    return " ".join(text.split())


def _is_shown(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs")


def escape(value: object) -> Safe:
    """A text as Markdown that shows it and nothing else; right-to-left text keeps to itself."""
    text = one_line(value)
    escaped = MARKUP.sub(r"\\\1", html.escape(text, quote=False))
    escaped = BEGINS.sub("\\\\", escaped, count=1) if BEGINS.match(escaped) else escaped
    if any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in text):
        escaped = ISOLATE + escaped + POP
    return Safe(escaped)


def shown(value: object) -> str:
    """A value as a document shows it: a number with separated thousands, yes or no, a list, a text."""
    if isinstance(value, Safe):
        return value
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        ordered = sorted(value.items(), key=lambda item: (-item[1], str(item[0])))
        return ", ".join(f"{escape(name)} {shown(count)}" for name, count in ordered) or "none"
    if isinstance(value, list | tuple | set):
        return ", ".join(shown(one) for one in value) or "none"
    return escape(value)


def code(value: object) -> Safe:
    """A text in the type of code, None as unknown."""
    return Safe(UNKNOWN if value is None else f"`{one_line(value).replace('`', chr(39))}`")


def table(rows: Iterable[Iterable[Any]], header: Iterable[Any]) -> Safe:
    """A table of a document."""
    head = [shown(cell) for cell in header]
    lines = [head, ["---"] * len(head), *([shown(cell) for cell in row] for row in rows)]
    return Safe("\n".join(f"| {' | '.join(line)} |" for line in lines))


def render(template: Path, **values: object) -> str:
    """A document.

    Args:
        template: a file, which may include files of its own folder and of `templates/` here.
        values: what it uses; a name that is missing is an error.

    Raises:
        jinja2.UndefinedError: the template uses a name that `values` does not have.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, SHARED]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=shown,
    )
    environment.filters.update(code=code, table=table)
    text = environment.get_template(template.name).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text)
