"""Which works are for validation: chosen by the hash of the id, so that a work stays where it is."""

from __future__ import annotations

import hashlib


def choose_split(ids: list[str], valid_fraction: float) -> dict[str, str]:
    """``train``, ``valid`` or ``both`` (the last tenth goes to validation) for each work.

    A work's hash alone decides, so that it stays where it is when others come; at least one work is in each
    split. With fewer than three works every one is cut.
    """
    if len(ids) < 3:
        return dict.fromkeys(ids, "both")
    ranks = {item: hashlib.sha256(f"split\x00{item}".encode()).digest() for item in ids}
    bound = int(valid_fraction * 2**64).to_bytes(9, "big")[1:]
    splits = {item: "valid" if rank[:8] < bound else "train" for item, rank in ranks.items()}
    splits[min(ids, key=ranks.__getitem__)] = "valid"
    if "train" not in splits.values():
        splits[max(ids, key=ranks.__getitem__)] = "train"
    return splits


def cut_for_validation(text: str) -> tuple[str, str]:
    """A text's first nine tenths and the rest, cut before a line or a word."""
    near = len(text) * 9 // 10
    for mark in ("\n", " "):
        cut = text.find(mark, near)
        if 0 < cut < len(text) - 1:
            return text[:cut], text[cut + 1 :]
    return text[:near], text[near:]
