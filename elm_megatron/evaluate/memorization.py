"""How often a model goes on verbatim with its training texts, beside texts that it has not seen.

    python launch/eval.py source=<run or folder> memorization=true

From works drawn by a seed a window of tokens is taken, 50 as the prompt and the 50 behind them. The model
continues the prompt greedily, and is verbatim when all 50 tokens are those of the work (Carlini et al. 2023,
"Quantifying Memorization Across Neural Language Models"). The rate on works held out of training says how
often that happens by chance.

A greedy continuation is verbatim as long as the likeliest token behind each true prefix is the true one. One
forward pass over prompt and continuation tells that, without a pass for every token.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conf.errors import InputError
from conf.schema.hf import Recall
from data_prep.manifest import SPLITS, Manifest
from data_prep.split import cut_for_validation
from elm_megatron.evaluate.perplexity import DOCUMENTS
from elm_megatron.sources.tokenizer_files import TokenizerSource, encoder

AT_ONCE = 256  # works that are read at a time
Z = 1.959963984540054  # of a two-sided interval of 95%
NAMES = {"train": "training works", "valid": "held-out works"}


@dataclass(frozen=True)
class Work:
    """A work that was drawn: what its windows are drawn with, and its text."""

    draw: int
    text: str


def drawn(manifest: Manifest, split: str, seed: int) -> Iterator[Work]:
    """The works of a split in an order that the seed and their ids give.

    Raises:
        InputError: the dataset has no documents.
    """
    import pyarrow.parquet as pq

    path = manifest.folder / DOCUMENTS
    if not path.is_file():
        raise InputError(f"{path} does not exist: memorization=true needs the texts of the dataset.")
    file = pq.ParquetFile(path)
    places = []
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=["id", "split"]).to_pylist()
        found = ((row["id"], n) for n, row in enumerate(rows) if row["split"] in (split, "both"))
        places += [(_draw(seed, identifier), group, n) for identifier, n in found]
    places.sort()
    for start in range(0, len(places), AT_ONCE):
        some = places[start : start + AT_ONCE]
        texts = {}
        for group in {group for _, group, _ in some}:  # a row group is read once for all of them
            table = file.read_row_group(group, columns=["split", "text"])
            for row in (n for _, other, n in some if other == group):
                texts[group, row] = _part(split, table["split"][row].as_py(), table["text"][row].as_py())
        yield from (Work(draw, texts[group, row]) for draw, group, row in some)


def _part(split: str, held_in: str, text: str) -> str:
    """What a split has of a text; a work that is in both is cut in two."""
    return cut_for_validation(text)[SPLITS.index(split)] if held_in == "both" else text


def _draw(seed: int, identifier: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x00{identifier}".encode()).digest()[:8])


def windows_of(ids: list[int], size: int, count: int, draw: int) -> np.ndarray:
    """At most `count` windows of `size` ids that do not overlap, int64 [windows, size]."""
    rng = np.random.Generator(np.random.PCG64(draw))
    slots = len(ids) // size
    if slots == 0:
        return np.zeros((0, size), np.int64)
    first = int(rng.integers(len(ids) - slots * size + 1))
    chosen = np.sort(rng.permutation(slots)[:count])
    return np.array([ids[first + slot * size : first + (slot + 1) * size] for slot in chosen], np.int64)


def sample(
    works: Iterator[Work], encode: Callable[[str], list[int]], recall: Recall
) -> tuple[np.ndarray, int, int]:
    """Windows of the first `recall.works` works that are long enough.

    Returns:
        The windows, int64 [windows, prompt and continuation]; of how many works; how many works were too
        short.
    """
    found, short = [], 0
    for work in works:
        taken = windows_of(encode(work.text), recall.tokens, recall.windows, work.draw)
        if len(taken):
            found.append(taken)
        else:
            short += 1
        if len(found) == recall.works:
            break
    none = np.zeros((0, recall.tokens), np.int64)
    return np.concatenate([none, *found]), len(found), short


def measure(
    model: torch.nn.Module, tokenizer: TokenizerSource, manifest: Manifest, recall: Recall, batch_size: int
) -> dict[str, Any]:
    """The rate on training works and on held-out works, with counts and intervals.

    Args:
        model: a causal language model of transformers, in eval mode.
        tokenizer: its own; the works are encoded with it.
        manifest: of the dataset that it was trained on.
        recall: how much is drawn.
        batch_size: windows at a time.

    Raises:
        InputError: the model takes no sequence of that length, or the dataset has no documents.
    """
    begin = [tokenizer.first_id] if tokenizer.adds_bos else []
    longest = model.config.max_position_embeddings
    if recall.tokens + len(begin) > longest:
        raise InputError(
            f"recall.prompt_tokens={recall.prompt_tokens} and recall.continued_tokens="
            f"{recall.continued_tokens}: are together longer than the model's longest sequence of {longest}."
        )
    encode = encoder(tokenizer.folder)
    result: dict[str, Any] = {
        "prompt_tokens": recall.prompt_tokens,
        "continued_tokens": recall.continued_tokens,
        "seed": recall.seed,
        "manifest_sha256": manifest.sha256,
    }
    for split in SPLITS:
        ids, works, short = sample(drawn(manifest, split, recall.seed), encode, recall)
        lengths = [
            verbatim(model, ids[start : start + batch_size], recall.prompt_tokens, begin)
            for start in range(0, len(ids), batch_size)
        ]
        counts = np.concatenate([np.zeros(0, np.int64), *lengths])
        result[split] = {"works": works, "too_short": short, **_figures(counts, recall.continued_tokens)}
    return result


@torch.inference_mode()
def verbatim(model: torch.nn.Module, ids: np.ndarray, prompt: int, begin: list[int]) -> np.ndarray:
    """How many tokens a greedy continuation has in common with the text before the first that differs.

    Args:
        ids: prompts and what follows them, int64 [b, n].
        prompt: tokens of a prompt.
        begin: ids that the model expects before a text.

    Returns:
        int64 [b], each at most n - prompt.
    """
    first = np.full((len(ids), len(begin)), begin, np.int64)
    inputs = torch.from_numpy(np.concatenate([first, ids], axis=1)).to(model.device)
    start = len(begin) + prompt
    likeliest = model(inputs).logits[:, start - 1 : -1].argmax(-1)
    right = (likeliest == inputs[:, start:]).long()
    return right.cumprod(-1).sum(-1).cpu().numpy()


def _figures(counts: np.ndarray, whole: int) -> dict[str, Any]:
    hits, windows = int((counts == whole).sum()), len(counts)
    low, high = wilson(hits, windows) if windows else (None, None)
    return {
        "windows": windows,
        "verbatim": hits,
        "rate": hits / windows if windows else None,
        "low": low,
        "high": high,
        "longest": int(counts.max()) if windows else None,
        "median": float(np.median(counts)) if windows else None,
    }


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a rate (Wilson 1927)."""
    rate, spread = hits / trials, Z * Z / trials
    middle = rate + spread / 2
    half = Z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return (0.0 if hits == 0 else max(0.0, low)), (1.0 if hits == trials else min(1.0, high))


def rows(figures: dict[str, Any] | None) -> Iterator[tuple[str, float | None]]:
    """What was found, for the table; nothing where it was not measured."""
    for split, name in NAMES.items() if figures else ():
        one = figures[split]
        yield f"continued verbatim, share of {name}", one["rate"]
        yield f"continued verbatim, {name}, 95% interval from", one["low"]
        yield f"continued verbatim, {name}, 95% interval to", one["high"]
        yield f"continued verbatim, {name}, windows", one["windows"]


def sentences(figures: dict[str, Any]) -> list[str]:
    """What was found, for the card."""
    found = [
        f"Memorization: {figures['prompt_tokens']} tokens of a work (drawn with seed {figures['seed']}) are "
        f"the prompt, and a greedy continuation is verbatim when the next {figures['continued_tokens']} are "
        "those of the work."
    ]
    for split, name in NAMES.items():
        one = figures[split]
        if not one["windows"]:
            found.append(f"None of the {name} is long enough.")
            continue
        found.append(
            f"Of {one['windows']:,} windows of {one['works']:,} {name}, {one['verbatim']:,} are continued "
            f"verbatim: {one['rate']:.1%} (95% interval {one['low']:.1%} to {one['high']:.1%}); the longest "
            f"verbatim continuation has {one['longest']} tokens."
        )
    return found
