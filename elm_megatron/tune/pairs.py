"""Preference pairs: read, split, encoded, and laid out in micro-batches."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from conf.errors import InputError
from conf.schema.tune import FinetuneConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.examples import EMPTY, Encoder, Example, held_out
from elm_megatron.chat.read import data_file, digest, listing, preferences
from elm_megatron.chat.template import Dialogue, Template, Turn
from elm_megatron.tune.rows import Rows

ALIKE = "left out, both answers alike after the cut"


@dataclass(frozen=True)
class PairBatch:
    """One micro-batch: rows [2b, s], the b chosen answers above the b rejected ones.

    Attributes:
        tokens, labels, position_ids: int64 [2b, s].
        weights: fp32 [2b, s], 1 where the label is part of an answer.
        real: fp32 [b], 0 for a place that only fills the batch.
        pairs: pairs of the whole global batch.
        share: micro-batches of the whole global batch.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    weights: torch.Tensor
    real: torch.Tensor
    pairs: float
    share: int


class Pairs:
    """Encoded pairs and the order in which steps take them.

    Args:
        chosen, rejected: encoded, same length of list.
        rows: how both are laid out: row i is chosen[i], row i + len(chosen) is rejected[i].
    """

    packing = False

    def __init__(self, chosen: list[Example], rejected: list[Example], **layout: int):
        self.n = len(chosen)
        self.both = Rows([*chosen, *rejected], **layout)
        self._order = Rows(chosen, **layout)
        self.sizes = self.both.sizes[: self.n] + self.both.sizes[self.n :]

    def __len__(self) -> int:
        return self.n

    def ids(self, consumed: int, count: int) -> np.ndarray:
        """The next `count` pair ids after `consumed`, int64 [count]."""
        return self._order.ids(consumed, count)

    def width(self, ids: np.ndarray) -> int:
        """Tokens of a row in a global batch, over both answers."""
        real = ids[ids >= 0]
        return self.both.width(np.concatenate([real, real + self.n]))

    def micro_batches(
        self, ids: np.ndarray, size: int, dp_rank: int, dp: int, device: torch.device
    ) -> Iterator[PairBatch]:
        """This rank's micro-batches of a global batch; an id of -1 is a place without a pair."""
        width, pairs = self.width(ids), float(max(1, (ids >= 0).sum()))
        for start in range(0, len(ids), size * dp):
            mine = ids[start + dp_rank * size : start + (dp_rank + 1) * size]
            rows = np.concatenate([mine, np.where(mine >= 0, mine + self.n, -1)])
            batch = self.both.batch_of(rows, width, device)
            real = torch.from_numpy((mine >= 0).astype(np.float32)).to(device)
            yield PairBatch(
                batch.tokens, batch.labels, batch.position_ids, batch.weights, real, pairs, len(ids) // size
            )


@dataclass(frozen=True)
class PairData:
    """The data of a preference tuning run; fields as in `SftData`."""

    train: Pairs
    valid: Pairs
    counts: dict[str, int]
    sha256: str

    @classmethod
    def read(cls, config: FinetuneConfig, tokenizer: Tokenizer) -> PairData:
        """Read everything `dpo.*` names.

        Raises:
            InputError: a file cannot be read, or holds too little.
        """
        dpo, tune = config.dpo, config.tune
        template = Template.load(tune.template)
        encoder = Encoder.of(tokenizer, template, tune.seq_length)
        paths = [data_file(name, "dpo.files") for name in dpo.files]
        counts: Counter[str] = Counter()
        pairs: list[tuple[Example, Example]] = []
        for path in paths:
            for preference in preferences(path, dpo.sheet, dpo.min_agreement, counts):
                both = [
                    encoder(Dialogue((Turn(preference.prompt, "", answer),)))
                    for answer in (preference.chosen, preference.rejected)
                ]
                if None in both:
                    continue
                if np.array_equal(both[0].ids, both[1].ids):
                    counts[ALIKE] += 1
                    continue
                pairs.append((both[0], both[1]))
        counts |= {f"answers {name}": n for name, n in encoder.counts.items() if name != "examples"}
        held = held_out([chosen.key for chosen, _ in pairs], dpo.valid_fraction)
        sides = {
            side: [p for p, out in zip(pairs, held, strict=True) if out == side] for side in (False, True)
        }
        if not sides[False] or not sides[True]:
            raise InputError(
                f"dpo.files={dpo.files}: {len(pairs)} pairs remain; at least two prompts are needed."
            )
        layout = {
            "length": tune.seq_length,
            "batch": tune.global_batch_size,
            "seed": tune.seed,
            "pad_id": tokenizer.filler_id,
            "multiple": config.parallel.tp if config.parallel.sp else 1,
        }
        train, valid = (
            Pairs([c for c, _ in sides[side]], [r for _, r in sides[side]], **layout)
            for side in (False, True)
        )
        counts = {"training pairs": len(train), "validation pairs": len(valid), **counts}
        rules = [f"begins with {tokenizer.begin}"] if tokenizer.begin else []
        rules += [ALIKE] if counts.get(ALIKE) or encoder.counts[EMPTY] else []
        text = hashlib.sha256("".join([repr(template), *rules]).encode()).hexdigest()
        return cls(train, valid, counts, hashlib.sha256((digest(paths) + text).encode()).hexdigest())

    def summary(self) -> str:
        """The counts in one line."""
        return listing(self.counts)
