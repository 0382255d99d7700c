"""The spreadsheet of students and staff: dialogues on one sheet, preferences between two answers on another.

A cell of the one sheet holds a dialogue, `Human: … Assistant: …` (also `Prompt:`), of one turn or more,
with or without quotes around it. The other sheet has a prompt, two options, and a column for each rater, who
writes 1 or 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from conf.errors import InputError
from elm_megatron.chat.records import text as as_text
from elm_megatron.chat.spreadsheet import Cell, Workbook
from elm_megatron.chat.template import Dialogue, Preference, Turn

DIALOGUE = "Prompt-Response"
PROMPT, OPTIONS = "Prompt", ("Option 1", "Option 2")
# At the start or after a blank, a quote or the end of a sentence; people also misspell the long word.
NAMES = r"(?:(Human|Prompt)|(Ass?i(?:s|st)?tant))\s*:"
SPEAKER = re.compile(rf"(?:^|(?<=[\s\"“”.?!])){NAMES}")
ASKER = re.compile(r"(?:user|question|vraag|gebruiker)\s*:\s*", re.I)  # in front of the first speaker
QUOTES = '"“”„'
# A dialogue that is quoted inside a turn: from a quote before a speaker's name to the quote that closes it.
QUOTED = re.compile(rf"(?<=[\s(\[:])[\"“„«‘'`](?={NAMES}).*?\S[\"”“»’'`](?=[\s.,;:!?)\]]|$)", re.DOTALL)
RATED = 0.75  # of a rater's filled cells hold a vote
# Words in the titles of columns that count or sum up what raters said.
NO_RATERS = frozenset(
    re.findall(
        r"\S+",
        """
        # n nr number numbers count total sum average mean median agreement agree majority winner
        result outcome score final best preferred preference chosen comment comments remark remarks
        note notes date id topic category aantal totaal som gemiddelde mediaan meerderheid winnaar
        uitslag resultaat voorkeur gekozen opmerking opmerkingen datum onderwerp categorie
        avg mode kappa consensus votes points difference check correct length words chars tokens
        row round batch week year time duration version split rank weight level
        difficulty language group team panel stemmen punten verschil controle goed lengte woorden rij
        regel ronde reeks jaar tijd duur versie deel pagina rang niveau taal groep
        """,
    )
)

# With the names or numbers of people beside them these are titles of raters: "Voorkeur Anna", "Score 2".
CHOICE = frozenset(
    (
        "score",
        "best",
        "preferred",
        "preference",
        "chosen",
        "voorkeur",
        "gekozen",
        "group",
        "groep",
        "team",
        "panel",
    )
)
RATER = frozenset(("rater", "annotator", "reviewer", "judge", "student", "beoordelaar"))
OPTION_VOTE = re.compile(r"(?:option|optie|answer|antwoord)\W{0,2}([12])", re.I)
FILLER = frozenset(("", "by", "of", "the", "option", "van", "de", "het", "door", "optie"))


def read_dialogues(path: Path, sheet: str, skipped: Counter[str]) -> Iterator[Dialogue]:
    """The dialogues of a sheet; rows without one are counted in `skipped`, by reason.

    Raises:
        InputError: not an .xlsx, no such sheet, or no such column.
    """
    rows = Workbook(path).rows(sheet)
    (column,) = _columns(path, sheet, next(rows, []), [DIALOGUE])
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
    marks = _marks(text)
    if not marks:
        return "no Assistant: turn"
    said = [
        ("human" if mark[1] else "assistant", text[mark.end() : stop].strip())
        for mark, stop in zip(marks, [*[m.start() for m in marks[1:]], len(text)], strict=True)
    ]
    before = text[: marks[0].start()].strip(QUOTES + " \n")
    before = ASKER.sub("", before, count=1) if ASKER.match(before) else before
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


def _marks(text: str) -> list[re.Match[str]]:
    """The speakers' names that begin a turn; those of a dialogue quoted inside a turn do not."""
    quoted = [match.span() for match in QUOTED.finditer(text)]
    return [
        mark
        for mark in SPEAKER.finditer(text)
        if not any(start <= mark.start() < end for start, end in quoted)
    ]


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
    for texts, given in rated(path, sheet, counts):
        votes = Counter(given.values())
        reason = _unusable(texts, votes, min_agreement)
        if reason:
            counts[f"skipped, {reason}"] += 1
            continue
        (winner, number), *_ = votes.most_common()
        yield Preference(texts[0], texts[winner], texts[3 - winner], number / votes.total())


def rated(path: Path, sheet: str, counts: Counter[str]) -> Iterator[tuple[list[str], dict[str, int]]]:
    """Each row: its prompt and two options, and who voted for which, 1 or 2, by the title of the column.

    Raises:
        InputError: not an .xlsx, no such sheet, or no such columns.
    """
    book = Workbook(path)
    rows = book.rows(sheet)
    header = next(rows, [])
    prompt, *options = wanted = _columns(path, sheet, header, [PROMPT, *OPTIONS])
    titled = {i: title for i, title in enumerate(header) if i > max(wanted) and as_text(title)}
    raters, others = _raters(titled, rows)
    counts.update(f"column {as_text(titled[i])!r} left out, no rater's" for i in others)
    rows = book.rows(sheet)
    next(rows, None)
    for row in rows:
        cells = row + [None] * (max(*wanted, *raters, 0) + 1 - len(row))
        texts = [as_text(cells[i]) or "" for i in (prompt, *options)]
        counts["ratings that are neither 1 nor 2"] += sum(_vote(cells[i]) == 0 for i in raters)
        given = {f"{as_text(titled[i])} {i}": vote for i in raters if (vote := _vote(cells[i])) in (1, 2)}
        yield texts, given


def _raters(titled: dict[int, Cell], rows: Iterable[list[Cell]]) -> tuple[list[int], list[int]]:
    """The columns of raters, and the filled columns of others, out of those with a title.

    A rater's filled cells are votes. A column that counts them is nobody's: by its title, or where its
    numbers vary and are in every row the number of the other votes.
    """
    votes: dict[int, list[int | None]] = {i: [] for i in titled}
    for row in rows:
        for i, found in votes.items():
            found.append(_vote(row[i] if i < len(row) else None))
    filled = {i: [vote for vote in found if vote is not None] for i, found in votes.items()}
    raters = [
        i
        for i, found in filled.items()
        if found
        and sum(vote in (1, 2) for vote in found) >= RATED * len(found)
        and not _sums_up(titled[i], titled.values())
    ]
    raters = [i for i in raters if not _counts_others(i, raters, votes)]
    return raters, [i for i, found in filled.items() if found and i not in raters]


def _sums_up(title: Cell, titles: Iterable[Cell]) -> bool:
    """Whether the title of a column says that it counts or sums up what raters said.

    "Rater nr 1" does not, and "Preference Anna" does not beside a "Preference Bram".
    """
    words = _words(title)
    if words & RATER and any(word.strip("#").isdigit() for word in words):
        return False
    listed = words & NO_RATERS
    alike = [one for one in map(_words, titles) if one & NO_RATERS == listed and one - listed - FILLER]
    return bool(listed) and not (listed <= CHOICE and words in alike and len(alike) > 1)


def _words(title: Cell) -> set[str]:
    return set(re.split(r"[^\w#]+", str(title).casefold()))


def _counts_others(column: int, raters: list[int], votes: dict[int, list[int | None]]) -> bool:
    others = [votes[i] for i in raters if i != column]
    numbers = [sum(vote in (1, 2) for vote in row) for row in zip(*others, strict=True)]
    pairs = [(mine, n) for mine, n in zip(votes[column], numbers, strict=False) if mine is not None]
    return len({mine for mine, _ in pairs}) > 1 and len(pairs) > 4 and all(mine == n for mine, n in pairs)


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
    text = as_text(cell)
    if not text:
        return None
    text = OPTION_VOTE.sub(r"\1", text)
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return 0
    return int(number) if number in (1.0, 2.0) else 0


def _columns(path: Path, sheet: str, header: list[Cell], wanted: list[str]) -> list[int]:
    """Places of the wanted columns.

    Raises:
        InputError: one is missing.
    """
    titles = [_plain_title(as_text(cell) or "") for cell in header]
    for name in wanted:
        if _plain_title(name) not in titles:
            raise InputError(f"{path}: sheet {sheet!r} has no column {name!r} in its first row.")
    return [titles.index(_plain_title(name)) for name in wanted]


def _plain_title(title: str) -> str:
    """A title without capitals, spaces and signs: "Option_1:" is "Option 1"."""
    return re.sub(r"[\W_]+", "", title.casefold())
