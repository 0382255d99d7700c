"""What the community app stores. A person is a pseudonym; no name, no address and no IP is kept.

Person ─ Consent (versions) ─ Item ─ Review
                           └─ Vote on a Comparison
"""

from __future__ import annotations

import time
from typing import Literal

from sqlalchemy import JSON, Boolean, Float, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Role = Literal["contributor", "reviewer", "moderator", "curator"]
ROLES: tuple[Role, ...] = ("contributor", "reviewer", "moderator", "curator")
KINDS = ("answer", "correction")
STATUSES = ("submitted", "accepted", "rejected", "quarantined", "withdrawn")
CHOICES = ("left", "right", "tie", "bad")
LABELS = ("spam", "personal_data", "wrong", "unclear", "not_appropriate")


class Base(DeclarativeBase):
    """The tables of the app."""


class Person(Base):
    """Somebody who logged in: a pseudonym and what it may do."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(40), unique=True)
    role: Mapped[str] = mapped_column(String(20), default="contributor")
    created: Mapped[float] = mapped_column(Float, default=time.time)


class Session(Base):
    """A login: the hash of the cookie's random number, and the token that its forms carry."""

    __tablename__ = "session"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    csrf: Mapped[str] = mapped_column(String(64))
    created: Mapped[float] = mapped_column(Float, default=time.time)


class UsedInvitation(Base):
    """An invitation that was used: it works once."""

    __tablename__ = "used_invitation"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)


class Consent(Base):
    """What a person agreed to, with the version of the text; the newest row counts."""

    __tablename__ = "consent"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    version: Mapped[int] = mapped_column(Integer)
    training: Mapped[bool] = mapped_column(Boolean)
    publication: Mapped[bool] = mapped_column(Boolean)
    contact: Mapped[bool] = mapped_column(Boolean)
    given: Mapped[float] = mapped_column(Float, default=time.time)


class Item(Base):
    """A prompt with an answer that a person wrote, or an answer of a model with its correction."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    consent_id: Mapped[int] = mapped_column(ForeignKey("consent.id"))
    kind: Mapped[str] = mapped_column(String(20))
    language: Mapped[str] = mapped_column(String(2))
    field: Mapped[str] = mapped_column(String(80), default="")
    source: Mapped[str] = mapped_column(String(400), default="")
    prompt: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)
    rejected: Mapped[str] = mapped_column(Text, default="")
    model: Mapped[str] = mapped_column(String(120), default="")
    rubric: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(20), default="submitted", index=True)
    created: Mapped[float] = mapped_column(Float, default=time.time)
    person: Mapped[Person] = relationship()
    consent: Mapped[Consent] = relationship()
    reviews: Mapped[list[Review]] = relationship(back_populates="item")


class Review(Base):
    """One person's word on another's item."""

    __tablename__ = "review"
    __table_args__ = (UniqueConstraint("item_id", "person_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), index=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    accepts: Mapped[bool] = mapped_column(Boolean)
    labels: Mapped[list[str]] = mapped_column(JSON, default=list)
    created: Mapped[float] = mapped_column(Float, default=time.time)
    item: Mapped[Item] = relationship(back_populates="reviews")


class Comparison(Base):
    """Two answers to one prompt, with the models that gave them."""

    __tablename__ = "comparison"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    consent_id: Mapped[int] = mapped_column(ForeignKey("consent.id"))
    language: Mapped[str] = mapped_column(String(2))
    field: Mapped[str] = mapped_column(String(80), default="")
    prompt: Mapped[str] = mapped_column(Text)
    answer_a: Mapped[str] = mapped_column(Text)
    answer_b: Mapped[str] = mapped_column(Text)
    model_a: Mapped[str] = mapped_column(String(120))
    model_b: Mapped[str] = mapped_column(String(120))
    dropped: Mapped[str] = mapped_column(String(40), default="")
    withdrawn: Mapped[bool] = mapped_column(Boolean, default=False)
    created: Mapped[float] = mapped_column(Float, default=time.time)
    consent: Mapped[Consent] = relationship()
    votes: Mapped[list[Vote]] = relationship(back_populates="comparison")


class Vote(Base):
    """One rater's choice; `swapped` says that answer b was on the left."""

    __tablename__ = "vote"
    __table_args__ = (UniqueConstraint("comparison_id", "person_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparison.id"), index=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    consent_id: Mapped[int] = mapped_column(ForeignKey("consent.id"))
    choice: Mapped[str] = mapped_column(String(10))
    swapped: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str] = mapped_column(Text, default="")
    rubric: Mapped[int] = mapped_column(Integer)
    withdrawn: Mapped[bool] = mapped_column(Boolean, default=False)
    created: Mapped[float] = mapped_column(Float, default=time.time)
    comparison: Mapped[Comparison] = relationship(back_populates="votes")
    person: Mapped[Person] = relationship()
    consent: Mapped[Consent] = relationship()

    @property
    def winner(self) -> str:
        """a, b, tie or bad, whatever side the answers were on."""
        if self.choice in ("tie", "bad"):
            return self.choice
        return "ab"[(self.choice == "right") != self.swapped]


class Report(Base):
    """Somebody's word that an item should be looked at by a moderator."""

    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), index=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    reason: Mapped[str] = mapped_column(String(400), default="")
    settled: Mapped[bool] = mapped_column(Boolean, default=False)
    created: Mapped[float] = mapped_column(Float, default=time.time)
    item: Mapped[Item] = relationship()


class Audit(Base):
    """What moderators, curators and people did with stored items, without the texts."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[float] = mapped_column(Float, default=time.time)
    actor: Mapped[str] = mapped_column(String(40))
    action: Mapped[str] = mapped_column(String(40))
    target: Mapped[str] = mapped_column(String(80))


class Tombstone(Base):
    """An item that was withdrawn: its number and the hash of its text, never the text."""

    __tablename__ = "tombstone"
    item_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sha256: Mapped[str] = mapped_column(String(64))
    created: Mapped[float] = mapped_column(Float, default=time.time)
