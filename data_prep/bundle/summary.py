"""The EU's public summary of training content, by the template of Article 53(1)(d) of the AI Act."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf.schema.institution import Institution
from data_prep.bundle import law, tables
from data_prep.bundle.answers import Answers
from data_prep.bundle.facts import Facts, Source
from data_prep.markdown import Safe, render

FILE = "training-content-summary.md"
TEMPLATES = Path(__file__).parent / "templates"
# The sections of the Commission's template, each a heading of the document.
SECTIONS = (
    "1. General information",
    "1.1 Provider identification",
    "1.2 Model identification",
    "1.3 Modalities, overall training data size and other characteristics",
    "2. List of data sources",
    "2.1 Publicly available datasets",
    "2.2 Private non-publicly available datasets obtained from third parties",
    "2.2.1 Datasets commercially licensed by rightsholders or their representatives",
    "2.2.2 Private datasets obtained from other third parties",
    "2.3 Data crawled and scraped from online sources",
    "2.4 User data",
    "2.5 Synthetic data",
    "2.6 Other sources of data",
    "3. Data processing aspects",
    "3.1 Respect of reservation of rights from text and data mining",
    "3.2 Removal of illegal content",
    "3.3 Other information",
)


@dataclass(frozen=True)
class TrainedModel:
    """A model that learnt from datasets and chat data.

    Attributes:
        name: of its last run.
        weights: hash of its weights.
        base: the model from elsewhere that it was made of, or "".
        tokens: read in all trainings; None is unknown.
        flop: of all trainings; None is unknown.
        flop_unknown: what is not in `flop`, or "".
        tunings: the files of chat data.
        withdrawn: the section about works that left the datasets since, Markdown.
    """

    name: str
    weights: str | None
    base: str
    tokens: int | None
    flop: float | None
    flop_unknown: str
    tunings: Sequence[Source] = field(default_factory=list)
    withdrawn: str = ""


def write(datasets: Sequence[Facts], institution: Institution, model: TrainedModel | None = None) -> str:
    """The summary of datasets, and of the model trained on them.

    Args:
        datasets: those that are there; none of them is a dataset that is gone.
        institution: what only a person knows.
        model: None beside a dataset.
    """
    answers = Answers(institution)
    tunings = list(model.tunings) if model else []
    sources = [source for facts in datasets for source in facts.sources(institution)] + tunings
    crawled = [source for source in sources if source.hosts]
    tokens = sum(facts.manifest.splits["train"].tokens for facts in datasets) if datasets else None
    size = law.text_size(tokens)
    languages = Counter[str]()
    for facts in datasets:
        languages.update(facts.manifest.languages)
    return render(
        TEMPLATES / FILE,
        title=title(datasets, model),
        answers=answers,
        law=law,
        model=model,
        datasets=datasets,
        tunings=tunings,
        tokens=tokens,
        size=size and Safe(size),
        languages=dict(languages),
        latest=max((facts.acquired[1] for facts in datasets if facts.acquired), default=None),
        crawled=crawled,
        agents=_agents(datasets, "corpus.harvest.user_agent"),
        rates=_agents(datasets, "corpus.harvest.requests_per_second"),
        period=period(datasets),
        domains=tables.domains(sources),
        overview=tables.overview,
        rights=tables.rights,
        listed=lambda category: tables.listed(sources, category, answers),
        has=lambda category: any(source.category == category for source in sources),
    )


def title(datasets: Sequence[Facts], model: TrainedModel | None) -> str:
    """What a document is about."""
    names = ", ".join(dict.fromkeys(facts.name for facts in datasets)) or "unknown"
    return f"Model: {model.name}. Datasets: {names}." if model else f"Dataset: {names}."


def period(datasets: Sequence[Facts]) -> str | None:
    """First and last day on which raw files came, where known."""
    days = [facts.acquired for facts in datasets if facts.acquired]
    return f"{min(first for first, _ in days)} to {max(last for _, last in days)}" if days else None


def _agents(datasets: Sequence[Facts], key: str) -> list[object]:
    """What the builds say of their harvests, each once."""
    return list(dict.fromkeys(facts.setting(key) for facts in datasets))
