"""What pretraining reads, `data.*`: one dataset, or several by weight, and how it treats a document's end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from conf import typed
from conf.errors import require
from conf.limits import Positive
from conf.schema.preprocess import DataConfig


@dataclass
class BlendPart:
    """One dataset of a blend.

    Attributes:
        dir: its folder.
        weight: its share of the samples trained on, relative to the other parts' weights.
    """

    dir: str
    weight: Positive = 1.0


@dataclass
class TrainingData(DataConfig):
    """The datasets of a run.

    Attributes:
        dir: the dataset; with a blend it gives the tokenizer and the validation split alone, unless it is one
            of the parts too.
        blend: datasets to train on instead of `dir`, as [{dir: data/a, weight: 3}, {dir: data/b, weight: 1}];
            all have the tokenizer of `dir`.
        reset_attention_mask: a document does not attend to those before it in its sample.
        eod_mask_loss: what follows a document's end is not learnt (nor counted in a loss).
    """

    blend: list[BlendPart] = field(default_factory=list)
    reset_attention_mask: bool = False
    eod_mask_loss: bool = False

    def check(self) -> None:
        """Refuse weights and lists that cannot be."""
        typed.check(self, "data")
        folders = [str(Path(part.dir).absolute()) for part in self.blend]
        for i, part in enumerate(self.blend):
            require(
                folders[i] not in folders[:i], f"data.blend[{i}].dir={part.dir}: stands in the blend twice."
            )
