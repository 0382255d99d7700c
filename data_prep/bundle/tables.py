"""The tables that several documents show of a dataset."""

from __future__ import annotations

from collections.abc import Iterable

from data_prep.bundle.answers import Answers
from data_prep.bundle.facts import Facts, Source
from data_prep.markdown import Safe, escape, table

MOST_ROWS = 30  # of a group; a harvest may have hundreds of licences in their authors' words
TITLES = {
    "language": "language",
    "source": "source",
    "licence": "licence",
    "access": "access",
    "rights_basis": "legal basis",
    "opt_out": "opt-out",
}
RIGHTS = ("access", "rights_basis", "opt_out")
# Reasons in dropped.parquet that have to do with rights, in words.
LEFT_OUT = {
    "opt_out": "on a list of opt-outs",
    "opt_out_copy": "a copy of a work on a list of opt-outs",
    "robots_txt": "not allowed by robots.txt",
    "taken_down": "taken down",
    "embargo": "under embargo",
    "closed_access": "closed access",
    "access_unknown": "without a statement on access",
    "deleted_at_source": "deleted at their source",
}


def overview(facts: Facts) -> Safe:
    """Splits, works and years of a dataset."""
    manifest = facts.manifest
    rows = [(name, split.documents, split.tokens, split.bytes) for name, split in manifest.splits.items()]
    splits = table(rows, ("split", "documents", "tokens", "bytes"))
    years = facts.years and f"{facts.years[0]} to {facts.years[1]}"
    counts = [
        ("works read", manifest.works["in"]),
        ("works kept", manifest.works["out"]),
        ("works dropped, by reason", manifest.works["dropped"]),
        ("years of the works", years),
    ]
    return Safe(f"{splits}\n\n{table(counts, ('what', 'value'))}")


def by_group(facts: Facts, column: str) -> Safe:
    """Works and tokens by language, source, licence or another column."""
    groups = facts.groups[column]
    title = TITLES[column]
    rows = [(name, group.works, group.tokens) for name, group in list(groups.items())[:MOST_ROWS]]
    rest = list(groups.values())[MOST_ROWS:]
    if rest:
        tokens = [group.tokens for group in rest]
        total = None if None in tokens else sum(filter(None, tokens))
        rows.append((f"{len(rest):,} more", sum(group.works for group in rest), total))
    return table(rows, (title, "works", "tokens"))


def groups(facts: Facts) -> Safe:
    """Works by language, source and year."""
    return Safe("\n\n".join(by_group(facts, column) for column in ("language", "source")))


def licences(facts: Facts) -> Safe:
    """Works by licence."""
    return by_group(facts, "licence")


def rights(facts: Facts) -> Safe:
    """Works by access, legal basis and opt-out, and those left out for the sake of rights."""
    kept = "\n\n".join(by_group(facts, column) for column in RIGHTS)
    left = [(words, facts.dropped(reason)) for reason, words in LEFT_OUT.items()]
    return Safe(f"{kept}\n\n{table(left, ('works left out', 'works'))}")


def cleaning(facts: Facts) -> Safe:
    """What was dropped, replaced and repaired."""
    manifest = facts.manifest
    rows = [
        ("works dropped, by reason", manifest.works["dropped"]),
        ("blocks (paragraphs) read", manifest.blocks.get("in")),
        ("blocks kept", manifest.blocks.get("out")),
        ("blocks dropped, by reason", manifest.blocks.get("dropped")),
        ("personal data replaced, by kind", manifest.redactions),
        ("characters repaired, by kind", manifest.repairs),
        ("fewest words of a block", facts.setting("clean.min_block_tokens")),
        ("fewest words of a work", facts.setting("clean.quality.min_words")),
        ("similarity from which works count as the same", facts.setting("clean.dedup.threshold")),
        ("share of works for validation", facts.setting("preprocess.valid_fraction")),
        ("pieces of the tokenizer", manifest.tokenizer.vocab_size),
    ]
    return table(rows, ("what", "value"))


def listed(sources: Iterable[Source], category: str, answers: Answers) -> Safe:
    """The sources of one category, or that there are none."""
    chosen = [source for source in sources if source.category == category]
    if not chosen:
        return Safe("None recorded.")
    rows = []
    for source in chosen:
        said = answers.absent(source.asked) if source.asked else "yes"
        size = None if source.works is None else Safe(f"{source.works:,} {source.what}")
        rows.append((source.name, source.of, "text", size, source.tokens, said))
    header = ("source", "dataset or stage", "modality", "size", "tokens", "category known")
    return table(rows, header)


def domains(sources: Iterable[Source]) -> Safe:
    """Every server that works were fetched from, those of most works first."""
    found = sorted(
        (source for source in sources if source.hosts), key=lambda source: (-(source.works or 0), source.name)
    )
    return Safe("; ".join(f"{escape(', '.join(s.hosts))} ({s.works or 0:,} works)" for s in found) or "none")
