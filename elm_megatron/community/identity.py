"""Who somebody is: invitations, logins and pseudonyms.

A pseudonym is a keyed hash (HMAC-SHA256) of what the identity provider or the invitation calls a person.
Without the key nobody can go from one to the other. The key is in a file that its owner alone can read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from sqlalchemy import select
from sqlalchemy.orm import Session as Database

from conf.errors import InputError
from elm_megatron.community.tables import ROLES, Person, Session, UsedInvitation

INVITATION_DAYS = 14
LOGIN_SECONDS = 12 * 3600
SECRET_BYTES = 32


def secret(folder: Path) -> bytes:
    """The app's key, made once.

    Raises:
        InputError: others can read it, or it is not whole.
    """
    path = folder / "secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise InputError(f"{path}: others can read the key; run chmod 600 {path}.") from None
        key = path.read_bytes()
        if len(key) != SECRET_BYTES:  # whoever knows a shorter one writes invitations
            raise InputError(
                f"{path}: holds {len(key)} bytes instead of {SECRET_BYTES}; restore it, or remove it, which "
                "gives everybody a new pseudonym."
            ) from None
        return key
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    return path.read_bytes()


def pseudonym(key: bytes, subject: str) -> str:
    """The name under which a person's items are kept, 16 hexadecimal digits."""
    return hmac.new(key, subject.encode(), hashlib.sha256).hexdigest()[:16]


def invite(key: bytes, role: str) -> str:
    """A signed invitation: whoever has it becomes a new person of that role, once, within 14 days.

    Raises:
        InputError: no such role.
    """
    if role not in ROLES:
        raise InputError(f"invite={role}: allowed are {', '.join(ROLES)}.")
    return _signer(key).dumps([secrets.token_urlsafe(12), role])


def accept(database: Database, key: bytes, invitation: str) -> Person | None:
    """The new person of an invitation; None when it is not ours, too old, or used."""
    try:
        subject, role = _signer(key).loads(invitation, max_age=INVITATION_DAYS * 86400)
    except (BadSignature, SignatureExpired, ValueError, TypeError):
        return None
    used = hashlib.sha256(subject.encode()).hexdigest()
    if role not in ROLES or database.get(UsedInvitation, used):
        return None
    database.add(UsedInvitation(id=used))
    person = Person(pseudonym=pseudonym(key, f"invitation:{subject}"), role=role)
    database.add(person)
    database.flush()
    return person


def known(database: Database, key: bytes, issuer: str, subject: str) -> Person:
    """The person that an identity provider vouches for; made at the first login."""
    name = pseudonym(key, f"{issuer} {subject}")
    person = database.scalar(select(Person).where(Person.pseudonym == name))
    if person is None:
        person = Person(pseudonym=name)
        database.add(person)
        database.flush()
    return person


def log_in(database: Database, person: Person) -> str:
    """Begin a login; returns the random number for the cookie, of which the database has the hash alone."""
    cookie = secrets.token_urlsafe(32)
    row = Session(id=_hash(cookie), person_id=person.id, csrf=secrets.token_urlsafe(24))
    database.add(row)
    return cookie


def login_of(database: Database, cookie: str | None) -> Session | None:
    """The login of a cookie; None when there is none, or it is too old."""
    row = database.get(Session, _hash(cookie)) if cookie else None
    if row is None or time.time() - row.created > LOGIN_SECONDS:
        return None
    return row


def log_out(database: Database, cookie: str) -> None:
    """End a login."""
    row = database.get(Session, _hash(cookie))
    if row is not None:
        database.delete(row)


def may(person: Person, least: str) -> bool:
    """Whether a person's role is `least` or above it."""
    return ROLES.index(person.role) >= ROLES.index(least)  # type: ignore[arg-type]


def _signer(key: bytes) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt="invitation")


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
