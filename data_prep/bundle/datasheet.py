"""The datasheet of a dataset, by the questions of Gebru et al. (2021), arXiv 1803.09010."""

from __future__ import annotations

from conf.schema.institution import Institution
from data_prep.bundle import summary, tables
from data_prep.bundle.answers import Answers
from data_prep.bundle.facts import Facts
from data_prep.markdown import render

FILE = "datasheet.md"


def write(facts: Facts, institution: Institution) -> str:
    """The datasheet."""
    return render(
        summary.TEMPLATES / FILE,
        facts=facts,
        answers=Answers(institution),
        sources=list(facts.sources(institution)),
        period=summary.period([facts]),
        overview=tables.overview,
        groups=tables.groups,
        licences=tables.licences,
        rights=tables.rights,
        cleaning=tables.cleaning,
    )
