"""The policy to comply with Union law on copyright, with its contact and the counts of rights."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.institution import Institution
from data_prep.bundle import summary, tables
from data_prep.bundle.answers import Answers
from data_prep.bundle.facts import Facts
from data_prep.markdown import render

FILE = "copyright-policy.md"


def write(
    datasets: Sequence[Facts], institution: Institution, model: summary.TrainedModel | None = None
) -> str:
    """The policy for datasets, and for the model trained on them."""
    return render(
        summary.TEMPLATES / FILE,
        title=summary.title(datasets, model),
        answers=Answers(institution),
        datasets=datasets,
        licences=tables.licences,
        rights=tables.rights,
    )
