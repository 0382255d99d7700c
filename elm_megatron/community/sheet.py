"""The spreadsheet of students into the database: dialogues to review, and pairs with the votes of raters.

People of a spreadsheet are pseudonyms as everybody is: a keyed hash of the column's title, so that a second
file of the same raters has the same people. What they agreed to was outside the app, and is kept as consent
version 0: to training, and to nothing else. Reading the same file again adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session as Database

from conf.schema.tune import DpoConfig, SftConfig
from elm_megatron.chat import eur_sheet
from elm_megatron.community import identity
from elm_megatron.community.settings import Settings
from elm_megatron.community.tables import Comparison, Consent, Item, Person, Vote

OUTSIDE = 0  # version of a consent that was not given in the app
AUTHOR = "spreadsheet: the authors"
MODELS = ("option 1 of a spreadsheet", "option 2 of a spreadsheet")
LANGUAGE = "nl"


def take(stored: Database, path: Path, key: bytes, settings: Settings) -> Counter[str]:
    """Add what the file has and the database has not; returns the counts, by kind and reason.

    Args:
        stored: the caller commits.
        path: the .xlsx.
        key: of the pseudonyms.
        settings: for the version of the rubric.

    Raises:
        InputError: it is not an .xlsx, or lacks a sheet or a column.
    """
    counts: Counter[str] = Counter()
    people: dict[str, tuple[Person, Consent]] = {}

    def person(name: str) -> tuple[Person, Consent]:
        if name not in people:
            people[name] = _person(stored, identity.pseudonym(key, name))
        return people[name]

    author, agreed = person(AUTHOR)
    known = {tuple(row) for row in stored.execute(select(Item.prompt, Item.answer))}
    rubric = settings.rubric["version"]
    for dialogue in eur_sheet.read_dialogues(path, SftConfig().sheet, counts):
        turn = dialogue.turns[0]
        if len(dialogue.turns) > 1:
            counts["skipped, several turns"] += 1
        elif (turn.instruction, turn.response) in known:
            counts["texts that are there already"] += 1
        else:
            known.add((turn.instruction, turn.response))
            stored.add(
                Item(
                    person_id=author.id, consent_id=agreed.id, kind="answer", language=LANGUAGE,
                    source=path.name[:400], prompt=turn.instruction, answer=turn.response, rubric=rubric,
                )
            )  # fmt: skip
            counts["texts, to be reviewed"] += 1
    _pairs(stored, path, counts, person, rubric)
    return counts


def _pairs(
    stored: Database,
    path: Path,
    counts: Counter[str],
    person: Callable[[str], tuple[Person, Consent]],
    rubric: int,
) -> None:
    author, agreed = person(AUTHOR)
    columns = select(Comparison.prompt, Comparison.answer_a, Comparison.answer_b)
    known = {tuple(row) for row in stored.execute(columns)}
    for texts, votes in eur_sheet.rated(path, DpoConfig().sheet, counts):
        if not all(texts) or texts[1] == texts[2]:
            counts["skipped, no pair"] += 1
            continue
        if tuple(texts) in known:
            counts["pairs that are there already"] += 1
            continue
        known.add((texts[0], texts[1], texts[2]))
        pair = Comparison(
            person_id=author.id, consent_id=agreed.id, language=LANGUAGE, prompt=texts[0],
            answer_a=texts[1], answer_b=texts[2], model_a=MODELS[0], model_b=MODELS[1],
        )  # fmt: skip
        stored.add(pair)
        stored.flush()
        counts["pairs"] += 1
        for title, choice in votes.items():
            rater, given = person(f"spreadsheet: rater {title}")
            side = "left" if choice == 1 else "right"
            stored.add(
                Vote(
                    comparison_id=pair.id, person_id=rater.id, consent_id=given.id,
                    choice=side, swapped=False, rubric=rubric,
                )
            )  # fmt: skip
            counts["votes"] += 1


def _person(stored: Database, pseudonym: str) -> tuple[Person, Consent]:
    """A person of the spreadsheet with what was agreed outside the app, made where they are missing."""
    person = stored.scalar(select(Person).where(Person.pseudonym == pseudonym))
    if person is None:
        person = Person(pseudonym=pseudonym)
        stored.add(person)
        stored.flush()
    consent = stored.scalar(select(Consent).where(Consent.person_id == person.id, Consent.version == OUTSIDE))
    if consent is None:
        consent = Consent(
            person_id=person.id, version=OUTSIDE, training=True, publication=False, contact=False
        )
        stored.add(consent)
        stored.flush()
    return person, consent
