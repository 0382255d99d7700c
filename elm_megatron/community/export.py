"""From the database to tuning files: answers as chat JSONL, corrections and votes as preference JSONL.

    sft-train.jsonl  sft-valid.jsonl  dpo-train.jsonl  dpo-valid.jsonl  manifest.json

The same database gives the same bytes. Each contributor is on one side of the split alone. What is left out
is counted with its reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as Database
from sqlalchemy.orm import selectinload

from conf.errors import InputError
from data_prep import files
from elm_megatron.community.exports import MANIFEST
from elm_megatron.community.ratings import agreement
from elm_megatron.community.tables import Comparison, Item, Tombstone, Vote

SCHEMA = 1
VALID_SHARE = 0.1  # of the contributors


def export(database: Database, folder: Path) -> dict[str, Any]:
    """Write an export; returns its manifest.

    Raises:
        InputError: the folder has files already, or nothing may be exported.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"export={folder}: has files already; give a new folder.")
    left_out: Counter[str] = Counter()
    rows: dict[str, list[tuple[str, dict[str, Any]]]] = {"sft": [], "dpo": []}
    for item in database.scalars(
        select(Item).options(selectinload(Item.consent), selectinload(Item.person)).order_by(Item.id)
    ):
        if reason := _reason_against(item):
            left_out[reason] += 1
            continue
        name = f"item {item.id}"
        rows["sft"].append((item.person.pseudonym, _chat(item.prompt, item.answer, name)))
        if item.kind == "correction" and item.rejected.strip() != item.answer.strip():
            rows["dpo"].append((item.person.pseudonym, _pair(item.prompt, item.answer, item.rejected, name)))
    for vote in database.scalars(
        select(Vote)
        .options(selectinload(Vote.comparison).selectinload(Comparison.consent))
        .options(selectinload(Vote.consent), selectinload(Vote.person))
        .order_by(Vote.id)
    ):
        if reason := _reason_against_vote(vote):
            left_out[reason] += 1
            continue
        pair = vote.comparison
        both = (pair.answer_a, pair.answer_b) if vote.winner == "a" else (pair.answer_b, pair.answer_a)
        rows["dpo"].append((vote.person.pseudonym, _pair(pair.prompt, *both, f"vote {vote.id}")))
    if not rows["sft"] and not rows["dpo"]:
        raise InputError(f"export={folder}: nothing may be exported yet ({dict(left_out) or 'no items'}).")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True, mode=0o700)
    try:
        manifest = _write(database, temporary, rows, left_out)
        files.replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _write(
    database: Database,
    folder: Path,
    rows: dict[str, list[tuple[str, dict[str, Any]]]],
    left_out: Counter[str],
) -> dict[str, Any]:
    """Write the files into a folder; returns their manifest."""
    written = {}
    for kind, found in rows.items():
        for side in ("train", "valid"):
            lines = [row for who, row in found if is_held_out(who) == (side == "valid")]
            text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in lines)
            path = folder / f"{kind}-{side}.jsonl"
            files.write(path, text)
            written[path.name] = {"rows": len(lines), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    manifest = {
        "schema": SCHEMA,
        "files": written,
        "items": sorted(row["id"] for found in rows.values() for _, row in found),
        "left_out": dict(sorted(left_out.items())),
        "contributors": len({who for found in rows.values() for who, _ in found}),
        "withdrawn": database.query(Tombstone).count(),
        "review_agreement": _review_agreement(database),
    }
    files.write(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def is_held_out(pseudonym: str) -> bool:
    """Whether a contributor is on the validation side: a function of the pseudonym alone."""
    return int(hashlib.sha256(pseudonym.encode()).hexdigest()[:8], 16) / 2**32 < VALID_SHARE


def _reason_against(item: Item) -> str | None:
    if item.status != "accepted":
        return item.status
    if not item.consent.training:
        return "no_consent_to_training"
    return None


def _reason_against_vote(vote: Vote) -> str | None:
    pair = vote.comparison
    if vote.withdrawn or pair.withdrawn:
        return "vote_withdrawn"
    if pair.dropped:
        return f"vote_{pair.dropped}"
    if vote.winner not in "ab":
        return "vote_without_winner"
    if not (vote.consent.training and pair.consent.training):
        return "vote_no_consent_to_training"
    if pair.answer_a.strip() == pair.answer_b.strip():
        return "vote_on_equal_answers"
    return None


def _chat(prompt: str, answer: str, name: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "id": name}


def _pair(prompt: str, chosen: str, rejected: str, name: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "id": name}


def _review_agreement(database: Database) -> float | None:
    """Krippendorff's alpha of the reviews."""
    items = database.scalars(select(Item).options(selectinload(Item.reviews)))
    return agreement(
        [(str(item.id), str(one.person_id), str(one.accepts)) for item in items for one in item.reviews]
    )
