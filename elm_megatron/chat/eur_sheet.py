"""The spreadsheet of students and staff: dialogues on one sheet, preferences between two answers on another.

Dialogues stand in one cell each, as `Human: … Assistant: …` (also `Prompt:`), perhaps several turns, perhaps
in quotes. Preferences have a prompt, two options, and a column for each rater, who writes 1 or 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from conf.errors import InputError
from elm_megatron.chat.template import Dialogue, Preference, Turn
from elm_megatron.chat.xlsx import Cell, Workbook

DIALOGUE = "Prompt-Response"
PROMPT, OPTIONS = "Prompt", ("Option 1", "Option 2")
# At the start or after a blank or a quote; people also misspell the long word.
SPEAKER = re.compile(r"(?:^|(?<=[\s\"“”]))(?:(Human|Prompt)|(Ass?i(?:s|st)?tant))\s*:")
QUOTES = '"“”„'


def read_dialogues(path: Path, sheet: str, skipped: Counter[str]) -> Iterator[Dialogue]:
    """The dialogues of a sheet; rows without one are counted in `skipped`, by reason.

    Raises:
        InputError: not an .xlsx, no such sheet, or no such column.
    """
    rows = Workbook(path).rows(sheet)
    (column,), _ = _columns(path, sheet, next(rows, []), [DIALOGUE])
    for row in rows:
        text = row[column] if column < len(row) else None
        if not isinstance(text, str) or not text.strip():
            skipped["no text"] += 1
            continue
        found = parse_dialogue(text)
        if isinstance(found, str):
            skipped[found] += 1
        else:
            yield found


def parse_dialogue(text: str) -> Dialogue | str:
    """A dialogue out of one cell, or the reason why it is none."""
    text = _unquoted(text.strip())
    marks = list(SPEAKER.finditer(text))
    if not marks:
        return "no Assistant: turn"
    said = [
        ("human" if mark[1] else "assistant", text[mark.end() : stop].strip())
        for mark, stop in zip(marks, [*[m.start() for m in marks[1:]], len(text)], strict=True)
    ]
    before = text[: marks[0].start()].strip(QUOTES + " \n")
    if before:
        said.insert(0, ("human", before))  # the first speaker's name was forgotten
    if "assistant" not in [speaker for speaker, _ in said]:
        return "no Assistant: turn"
    if said[-1][0] == "human":
        said.pop()  # a question nobody answered
    if [speaker for speaker, _ in said] != ["human", "assistant"] * (len(said) // 2):
        return "human and assistant do not take turns"
    if not all(words for _, words in said):
        return "an empty turn"
    return Dialogue(tuple(Turn(q, "", a) for (_, q), (_, a) in zip(said[::2], said[1::2], strict=True)))


def _unquoted(text: str) -> str:
    """Without the quotes around the whole cell, which spreadsheets put there and people forget to close."""
    if text[:1] in QUOTES and SPEAKER.match(text[1:].lstrip()):
        text = text[1:].lstrip()
        if text[-1:] in QUOTES and sum(text.count(q) for q in QUOTES) % 2:
            text = text[:-1].rstrip()
    return text.replace('""', '"')


def read_preferences(
    path: Path, sheet: str, min_agreement: float, counts: Counter[str]
) -> Iterator[Preference]:
    """The preferences of a sheet; rows without one are counted, by reason.

    Raises:
        InputError: not an .xlsx, no such sheet, or no such columns.
    """
    rows = Workbook(path).rows(sheet)
    (prompt, *options), raters = _columns(path, sheet, next(rows, []), [PROMPT, *OPTIONS])
    for row in rows:
        cells = row + [None] * (max(prompt, *options, *raters, 0) + 1 - len(row))
        texts = [cells[i].strip() if isinstance(cells[i], str) else "" for i in (prompt, *options)]
        votes = Counter(vote for i in raters if (vote := _vote(cells[i])) in (1, 2))
        counts["ratings that are neither 1 nor 2"] += sum(_vote(cells[i]) == 0 for i in raters)
        reason = _unusable(texts, votes, min_agreement)
        if reason:
            counts[f"skipped, {reason}"] += 1
            continue
        (winner, number), *_ = votes.most_common()
        yield Preference(texts[0], texts[winner], texts[3 - winner], number / votes.total())


def _unusable(texts: list[str], votes: Counter[int], min_agreement: float) -> str | None:
    """Why a row gives no preference, or None."""
    if not texts[0]:
        return "no prompt"
    if not (texts[1] and texts[2]):
        return "an option is missing"
    if texts[1] == texts[2]:
        return "both options alike"
    if not votes:
        return "nobody rated it"
    if votes[1] == votes[2]:
        return "a tie"
    if max(votes.values()) / votes.total() < min_agreement:
        return "raters disagree"
    return None


def _vote(cell: Cell) -> int | None:
    """1 or 2, None for an empty cell, 0 for anything else."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        number = float(cell)
    except ValueError:
        return 0
    return int(number) if number in (1.0, 2.0) else 0


def _columns(path: Path, sheet: str, header: list[Cell], wanted: list[str]) -> tuple[list[int], list[int]]:
    """Places of the wanted columns, and of the named ones to the right of them all.

    Raises:
        InputError: one is missing.
    """
    titles = [cell.strip().casefold() if isinstance(cell, str) else "" for cell in header]
    places = []
    for name in wanted:
        if name.casefold() not in titles:
            raise InputError(f"{path}: sheet {sheet!r} has no column {name!r} in its first row.")
        places.append(titles.index(name.casefold()))
    return places, [i for i, title in enumerate(titles) if title and i > max(places)]
