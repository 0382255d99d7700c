"""What people give: writing, reviewing, comparing, reporting and withdrawing, as functions on the database.

The rules are here and nowhere else: who may review what, when an item is accepted, when a vote is dropped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Database

from elm_megatron.community.tables import (
    LABELS,
    Audit,
    Comparison,
    Consent,
    Item,
    Person,
    Report,
    Review,
    Tombstone,
    Vote,
)

REVIEWS = 3  # of each item
ACCEPTED_FROM = 0.6  # share of them
RATERS = 2  # at least, of each comparison


class Refused(Exception):
    """Something may not be done; the text is for the person who asked."""


def consent_of(database: Database, person: Person, version: int) -> Consent | None:
    """The newest consent of a person, when it is to the present version of the text."""
    newest = database.scalar(
        select(Consent).where(Consent.person_id == person.id).order_by(Consent.id.desc()).limit(1)
    )
    return newest if newest is not None and newest.version == version else None


def give(database: Database, item: Item) -> Item:
    """Store an item; its person's consent is on it."""
    database.add(item)
    database.flush()
    return item


def next_to_review(database: Database, person: Person) -> Item | None:
    """The oldest item that lacks reviews, is not this person's, and was not reviewed by this person."""
    seen = select(Review.item_id).where(Review.person_id == person.id)
    count = select(func.count(Review.id)).where(Review.item_id == Item.id).scalar_subquery()
    return database.scalar(
        select(Item)
        .where(Item.status == "submitted", Item.person_id != person.id, Item.id.not_in(seen), count < REVIEWS)
        .order_by(Item.id)
        .limit(1)
    )


def review(database: Database, person: Person, item_id: int, accepts: bool, labels: Sequence[str]) -> Item:
    """Add a review, and settle the item with its third.

    Raises:
        Refused: it is one's own, was reviewed already, or is not under review.
    """
    item = database.get(Item, item_id)
    if item is None or item.status != "submitted":
        raise Refused("this item is not under review")
    if item.person_id == person.id:
        raise Refused("one's own item is reviewed by others")
    if any(one.person_id == person.id for one in item.reviews):
        raise Refused("this item was reviewed by you already")
    item.reviews.append(
        Review(person_id=person.id, accepts=accepts, labels=[one for one in labels if one in LABELS])
    )
    if "personal_data" in labels:
        item.status = "quarantined"  # a moderator looks at it before anyone else does
        note(database, person.pseudonym, "quarantined", f"item {item.id}")
    else:
        _settle(item)
    database.flush()
    return item


def _settle(item: Item) -> None:
    """Accept or reject an item that has all its reviews."""
    if len(item.reviews) >= REVIEWS:
        share = sum(one.accepts for one in item.reviews) / len(item.reviews)
        item.status = "accepted" if share >= ACCEPTED_FROM else "rejected"


def report(database: Database, person: Person, item_id: int, reason: str) -> None:
    """Tell the moderators about an item."""
    if database.get(Item, item_id) is None:
        raise Refused("there is no such item")
    database.add(Report(item_id=item_id, person_id=person.id, reason=reason[:400]))


def moderate(database: Database, person: Person, item_id: int, action: str) -> Item:
    """Quarantine an item, or restore it to review, which its reviews end at once where it has them all.

    Its reports are settled.

    Raises:
        Refused: there is no such item or action, or it was withdrawn.
    """
    item = database.get(Item, item_id)
    if item is None or item.status == "withdrawn" or action not in ("quarantine", "restore"):
        raise Refused("there is no such item")
    item.status = "quarantined" if action == "quarantine" else "submitted"
    if action == "restore":
        _settle(item)
    for one in database.scalars(select(Report).where(Report.item_id == item_id)):
        one.settled = True
    note(database, person.pseudonym, action, f"item {item_id}")
    return item


def next_to_compare(database: Database, person: Person) -> Comparison | None:
    """A pair that lacks raters and that this person has not rated."""
    seen = select(Vote.comparison_id).where(Vote.person_id == person.id)
    count = select(func.count(Vote.id)).where(Vote.comparison_id == Comparison.id).scalar_subquery()
    return database.scalar(
        select(Comparison)
        .where(
            Comparison.dropped == "",
            Comparison.withdrawn.is_(False),
            Comparison.id.not_in(seen),
            count < RATERS,
        )
        .order_by(count.desc(), Comparison.id)
        .limit(1)
    )


def vote(database: Database, rater: Person, comparison_id: int, given: Vote) -> Vote:
    """Store a vote.

    Raises:
        Refused: there is no such pair, or this person rated it already.
    """
    pair = database.get(Comparison, comparison_id)
    if pair is None or pair.withdrawn:
        raise Refused("there is no such comparison")
    if any(one.person_id == rater.id for one in pair.votes):
        raise Refused("this comparison was rated by you already")
    given.comparison_id, given.person_id = pair.id, rater.id
    database.add(given)
    database.flush()
    return given


def reveals(text: str, models: Sequence[str]) -> bool:
    """Whether an answer names its model, so that a vote on it is not blind."""
    said = text.casefold()
    names = {part for name in models for part in re.split(r"[\s/@]+", name.casefold()) if len(part) > 3}
    return any(name in said for name in names)


def withdraw_item(database: Database, item: Item, actor: str) -> None:
    """Take an item back: its text goes, its number and hash stay as a tombstone."""
    if item.status == "withdrawn":
        return
    database.merge(Tombstone(item_id=item.id, sha256=digest(item)))
    item.status = "withdrawn"
    item.prompt = item.answer = item.rejected = item.source = item.field = ""
    note(database, actor, "withdrew", f"item {item.id}")


def exported_names(database: Database, person: Person) -> list[str]:
    """What exports call the rows that hold something of a person.

    These are also others' votes on a pair whose prompt this person wrote.
    """
    given = database.scalars(select(Item.id).where(Item.person_id == person.id).order_by(Item.id))
    votes = database.scalars(
        select(Vote.id)
        .join(Comparison)
        .where((Vote.person_id == person.id) | (Comparison.person_id == person.id))
        .order_by(Vote.id)
    )
    return [f"item {number}" for number in given] + [f"vote {number}" for number in votes]


def withdraw_person(database: Database, person: Person) -> list[int]:
    """Take back all that a person gave; returns the numbers of the items."""
    items = list(
        database.scalars(select(Item).where(Item.person_id == person.id, Item.status != "withdrawn"))
    )
    for item in items:
        withdraw_item(database, item, person.pseudonym)
    for one in database.scalars(select(Vote).where(Vote.person_id == person.id)):
        one.withdrawn, one.reason = True, ""
    for pair in database.scalars(select(Comparison).where(Comparison.person_id == person.id)):
        pair.withdrawn = True
        pair.prompt = pair.answer_a = pair.answer_b = pair.field = ""
    for one in database.scalars(select(Report).where(Report.person_id == person.id)):
        one.reason = ""
    note(database, person.pseudonym, "withdrew", "everything")
    return [item.id for item in items]


def digest(item: Item) -> str:
    """The hash of an item's text."""
    return hashlib.sha256("\0".join((item.prompt, item.answer, item.rejected)).encode()).hexdigest()


def note(database: Database, actor: str, action: str, target: str) -> None:
    """Write into the audit log; texts never go there."""
    database.add(Audit(actor=actor, action=action, target=target))
