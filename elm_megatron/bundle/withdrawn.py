"""The section of card and summary about works that were taken down or opted out after the training."""

from __future__ import annotations

from pathlib import Path

from data_prep import files
from data_prep.bundle import summary

FILES = ("README.md", f"bundle/{summary.FILE}")  # of a model's folder: the card and the summary
HEADING = "## Works withdrawn since"
MARKS = ("<!-- withdrawn -->", "<!-- end of withdrawn -->")
BEFORE = ("## Losses", "## Evaluation", "## Citation")  # the section goes before the first of these
NONE = "No work was taken down or opted out since the training of this model, as far as its datasets record."


def section(count: int, date: str) -> str:
    """The section, with the number of works and the last date, ``YYYY-MM-DD``."""
    works = "1 work that this model may have learnt from was" if count == 1 else (
        f"{count:,} works that this model may have learnt from were"
    )  # fmt: skip
    text = (
        f"{works} taken down or opted out since its training, the last on {date or 'an unknown date'}. "
        "Datasets that are made later are without them. A trained model cannot unlearn a text."
        if count
        else NONE
    )
    return f"{HEADING}\n\n{MARKS[0]}\n{text}\n{MARKS[1]}"


def refresh(folder: Path, count: int, date: str) -> bool:
    """Bring the section of a model's card and summary up to date, or add it to an older card.

    Returns:
        False when the folder has no card of ours.
    """
    card, _ = [_refresh(folder / name, count, date) for name in FILES]
    return card


def _refresh(path: Path, count: int, date: str) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if "erasmian-language-model" not in text and HEADING not in text:
        return False
    new = section(count, date)
    head, start, rest = text.partition(f"{HEADING}\n\n{MARKS[0]}")
    _, end, tail = rest.partition(MARKS[1])
    if start and end:
        changed = f"{head}{new}{tail}"
    else:
        at = next((place for mark in BEFORE if (place := text.find(f"\n{mark}\n")) >= 0), len(text))
        changed = f"{text[:at].rstrip()}\n\n{new}\n{text[at:]}"
    if changed != text:
        files.write(path, changed)
    return True
