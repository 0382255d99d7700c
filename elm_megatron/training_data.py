"""What pretraining reads, `data.*`: one dataset, or several by weight, and how it treats a document's end.

Torch-free, so that a launcher refuses before anything starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.config import DataConfig
from data_prep.errors import InputError
from data_prep.manifest import Manifest
from elm_megatron.refusal import require


@dataclass
class BlendPart:
    """One dataset of a blend.

    Attributes:
        dir: its folder.
        weight: its share of the samples trained on, relative to the other parts' weights.
    """

    dir: str
    weight: float = 1.0


@dataclass
class TrainingData(DataConfig):
    """The datasets of a run.

    Attributes:
        dir: the dataset; with a blend it gives the tokenizer and the validation split alone, unless it is one
            of the parts too.
        blend: datasets to train on instead of `dir`, each with its weight; all have `dir`'s tokenizer.
        reset_attention_mask: a document does not attend to those before it in its sample.
        reset_position_ids: positions begin anew with each document; rotary positions do so exactly where
            attention does, hence only with `reset_attention_mask`, and as they are relative, with the same
            result as without.
        eod_mask_loss: what follows a document's end is not learnt (nor counted in a loss).
    """

    blend: list[BlendPart] = field(default_factory=list)
    reset_attention_mask: bool = False
    reset_position_ids: bool = False
    eod_mask_loss: bool = False

    def check(self) -> None:
        """Refuse weights, lists and combinations that cannot be."""
        require(
            self.reset_attention_mask or not self.reset_position_ids,
            "data.reset_position_ids=true needs data.reset_attention_mask=true: rotary positions begin anew "
            "where attention does.",
        )
        folders = [str(Path(part.dir).absolute()) for part in self.blend]
        for i, part in enumerate(self.blend):
            require(
                part.weight > 0 and math.isfinite(part.weight),
                f"data.blend[{i}].weight={part.weight}: must be above 0.",
            )
            require(
                folders[i] not in folders[:i], f"data.blend[{i}].dir={part.dir}: stands in the blend twice."
            )


def open_parts(data: TrainingData, manifest: Manifest, seq_length: int) -> list[Manifest]:
    """The datasets to train on, checked: those of the blend, or the one dataset alone.

    Args:
        manifest: of `data.dir`, whose tokenizer all must have.
        seq_length: tokens of a sample.

    Raises:
        InputError: a part does not exist, is damaged or too small, or has another tokenizer.
    """
    if not data.blend:
        return [manifest]
    parts = []
    for i, part in enumerate(data.blend):
        opened = Manifest.load(Path(part.dir))
        key = f"data.blend[{i}].dir={part.dir}"
        if opened.stale:
            raise InputError(f"{key}: {opened.stale}; build it again.")
        opened.check_files()
        if opened.tokenizer.sha256 != manifest.tokenizer.sha256:
            raise InputError(
                f"{key}: was made with another tokenizer (sha256 {opened.tokenizer.sha256[:12]}…) than "
                f"data.dir={data.dir} ({manifest.tokenizer.sha256[:12]}…); give datasets of one tokenizer."
            )
        tokens = opened.splits["train"].tokens
        require(
            tokens > seq_length,
            f"{key}: its training split holds {tokens} tokens, fewer than one sequence of "
            f"train.seq_length={seq_length} + 1.",
        )
        parts.append(opened)
    return parts
