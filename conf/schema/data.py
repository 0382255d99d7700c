"""What pretraining reads, `data.*`: one dataset, or several by weight, and how it treats a document's end.

Torch-free, so that a launcher refuses before anything starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from conf.refusal import require
from conf.schema.preprocess import DataConfig


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
