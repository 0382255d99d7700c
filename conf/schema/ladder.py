"""Everything of `python launch/ladder.py`: a pretraining command, and the smaller models that predict it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from conf.errors import require
from conf.limits import Count, Within
from conf.schema.pretrain import PretrainConfig

Fraction = Annotated[float, Within(gt=0, lt=1)]


@dataclass
class LadderConfig(PretrainConfig):
    """A ladder: small models of the family of `model`, and what they say of its loss.

    Attributes:
        widths: hidden sizes of the small models, as shares of `model.hidden_size`; layers follow.
        tokens: what `model` would be trained on; null is what `train.steps` or `train.epochs` give.
        least_steps: updates of each small model at least; its batch is made smaller for that.
    """

    widths: list[Fraction] = field(default_factory=lambda: [0.125, 0.1875, 0.25, 0.375])
    tokens: Count | None = None
    least_steps: Count = 100

    def pretraining(self) -> PretrainConfig:
        """The pretraining command alone."""
        return PretrainConfig(**{one.name: getattr(self, one.name) for one in fields(PretrainConfig)})

    def check(self) -> None:
        """Refuse a model that cannot be, and too few widths."""
        super().check()
        require(
            len(set(self.widths)) >= 3,
            f"widths={self.widths}: give at least 3 different ones, as widths=[0.125,0.25,0.375].",
        )
