"""The data of a supervised tuning run: files read, split, weighted and laid out in rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from conf.errors import InputError
from conf.schema.tune import FinetuneConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.examples import EMPTY, Encoder, Example, held_out
from elm_megatron.chat.read import data_file, dialogues, digest, listing
from elm_megatron.chat.template import Template
from elm_megatron.tune.rows import Rows

ALIKE = "left out, the same as another after the cut"


@dataclass(frozen=True)
class SftData:
    """Rows to train on and to measure on.

    Attributes:
        train, valid: the rows; validation is never packed or weighted.
        counts: examples, turns, skipped records by reason, truncated examples.
        sha256: of the files and the template, which may not change while the run lives.
    """

    train: Rows
    valid: Rows
    counts: dict[str, int]
    sha256: str

    @classmethod
    def read(cls, config: FinetuneConfig, tokenizer: Tokenizer) -> SftData:
        """Read everything `sft.*` names.

        Raises:
            InputError: a file cannot be read, or holds too little.
        """
        sft, tune = config.sft, config.tune
        template = Template.load(tune.template)
        encoder = Encoder.of(tokenizer, template, tune.seq_length)
        counts: Counter[str] = Counter()
        paths = [data_file(name, "sft.files") for name in sft.files]
        valid_paths = [data_file(name, "sft.valid_files") for name in sft.valid_files]
        files = [_examples(path, sft.sheet, encoder, counts) for path in paths]
        valid = [e for path in valid_paths for e in _examples(path, sft.sheet, encoder, counts)]
        files, (valid,) = different(files, counts), different([valid], counts)
        if not valid_paths:  # over all files, for a question may stand in several
            out = iter(held_out([e.key for examples in files for e in examples], sft.valid_fraction))
            sides = [[(e, next(out)) for e in examples] for examples in files]
            valid = [e for examples in sides for e, held in examples if held]
            files = [[e for e, held in examples if not held] for examples in sides]
        train = [e for examples in files for e in examples]
        weights = sft.weights or [1.0] * len(files)
        draws = [n for e, w in zip(files, weights, strict=True) for n in _draws(len(e), w, tune.seed)]
        counts |= encoder.counts
        if not train or not valid:
            raise InputError(
                f"sft.files={sft.files}: {len(train)} examples to train on and {len(valid)} to measure on "
                f"remain ({listing(counts)}); at least one of each is needed."
            )
        if not any(draws):
            raise InputError(
                f"sft.weights={sft.weights}: they draw none of {len(train)} training examples; raise them."
            )
        sizes = (tune.seq_length, tune.global_batch_size, tune.seed, tokenizer.filler_id)
        unit = config.parallel.tp if config.parallel.sp else 1
        # What else decides on the rows; said only where it matters, so that older runs go on.
        rules = ["one split over all files"] if len(paths) > 1 and not valid_paths else []
        rules += [f"begins with {tokenizer.begin}"] if tokenizer.begin else []
        rules += [ALIKE] if counts[ALIKE] or counts[EMPTY] else []
        text = hashlib.sha256("".join([repr(template), *rules]).encode()).hexdigest()
        return cls(
            train=Rows(train, *sizes, tune.packing, draws, unit),
            valid=Rows(valid, *sizes, multiple=unit),
            counts={"training examples": len(train), "validation examples": len(valid), **counts},
            sha256=hashlib.sha256((digest(paths + valid_paths) + text).encode()).hexdigest(),
        )

    def summary(self) -> str:
        """The counts in one line."""
        return listing(self.counts)


def _examples(path, sheet: str, encoder: Encoder, counts: Counter[str]) -> list[Example]:
    skipped: Counter[str] = Counter()
    examples = []
    for dialogue in dialogues(path, sheet, skipped):
        counts["dialogues"] += 1
        counts["turns"] += len(dialogue.turns)
        if (example := encoder(dialogue)) is not None:
            examples.append(example)
    for reason, number in skipped.items():
        counts[f"skipped, {reason}"] += number
    return examples


def different(files: list[list[Example]], counts: Counter[str]) -> list[list[Example]]:
    """Examples that differ, the first of those that are alike after the cut; the others are counted.

    Args:
        files: the examples of each file.
        counts: gets how many were left out.
    """
    seen: set[bytes] = set()
    kept: list[list[Example]] = []
    for examples in files:
        kept.append([])
        for example in examples:
            content = example.ids.tobytes() + example.answer.tobytes()
            if content in seen:
                counts[ALIKE] += 1
            else:
                kept[-1].append(example)
            seen.add(content)
    return kept


def _draws(examples: int, weight: float, seed: int) -> list[int]:
    """How often each example stands in an epoch: ⌊weight⌋, and once more for a share chosen by the seed."""
    whole, part = divmod(weight, 1.0)
    more = np.random.Generator(np.random.PCG64(seed)).permutation(examples) < round(part * examples)
    return (int(whole) + more.astype(int)).tolist()
