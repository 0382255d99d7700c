"""``report.html``: what a dataset holds and what was left out, for people; one file, light and dark."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from html import escape
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data_prep import files
from data_prep.documents import DOCUMENTS
from data_prep.manifest import SPLITS, Manifest
from data_prep.works import works

REPORT = "report.html"
BINS = 20
MOST_WORKS = 1000  # listed in the report
LONGEST_LABEL, CHARACTER = 30, 11  # of a bar: characters, and how wide one is on a phone
STALE = (
    "<p><b>To build again: {}.</b> The works below are without it; the splits are those of the .bin, which "
    "holds it until then.</p>"
)
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fdfdfb; --soft: #5c6773; --line: #d9dde2;
  --bar: #0c6e5f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --paper: #14181d; --soft: #9aa5b1; --line: #333b45; --bar: #35b39b; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.sub { color: var(--soft); margin-top: .2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 3.5rem; }
th { color: var(--soft); font-weight: 600; }
figure { margin: .8rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 12px; } svg rect { fill: var(--bar); }
svg text.n { fill: var(--soft); }
@media (max-width: 40rem) { svg text { font-size: 20px; } }
"""


def write_report(manifest: Manifest, folder: Path) -> None:
    """Write the report of a dataset.

    Args:
        manifest: its description.
        folder: holds ``documents.parquet`` and, of a dataset that is not to be built again,
            ``<split>.lengths``; and gets the report.
    """
    groups, lengths = _count(folder, not manifest.stale)
    parts = [
        f"<h1>{escape(manifest.corpus)}</h1>",
        f"<p class=sub>{manifest.works['out']:,} works, {manifest.tokens:,} tokens, vocabulary "
        f"{manifest.tokenizer.vocab_size:,}, ids as {manifest.dtype}</p>",
        *([STALE.format(escape(manifest.stale))] if manifest.stale else []),
        "<h2>Every work and block accounted for</h2>",
        _account(manifest),
        "<h2>Splits</h2>",
        _table(
            ("split", "documents", "tokens", "unigram entropy (nats per token)"),
            [
                (name, f"{split.documents:,}", f"{split.tokens:,}", f"{split.unigram_entropy:.3f}")
                for name, split in manifest.splits.items()
            ],
        ),
    ]
    for title, column in (
        ("Year", "year"),
        ("Language", "language"),
        ("Source", "source"),
        ("Licence", "licence"),
    ):
        rows = sorted(groups[column].items())
        parts.append(f"<h2>{title}</h2>")
        if len(rows) > 1:
            counted, unit = (0, "works") if manifest.stale else (1, "tokens")
            parts.append(_bars([(name, both[counted]) for name, both in rows], f"{unit} by {column}"))
        width = 2 if manifest.stale else 3
        cells = [(name, f"{documents:,}", f"{tokens:,}")[:width] for name, (documents, tokens) in rows]
        parts.append(_table((title.lower(), "documents", "tokens")[:width], cells))
    parts += ["<h2>Rights</h2>", _rights(manifest)]
    parts += ["<h2>Length of documents</h2>", _histogram(lengths)] if not manifest.stale else []
    parts += ["<h2>Personal data replaced</h2>", _counts(manifest.redactions, "replacements")]
    parts += ["<h2>Characters repaired</h2>", _counts(manifest.repairs, "characters")]
    parts += ["<h2>Works</h2>", _works(folder)]
    if manifest.notes:
        parts += ["<h2>Notes</h2>", "<ul>", *(f"<li>{escape(note)}</li>" for note in manifest.notes), "</ul>"]
    head = (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
    )
    title = f"<title>Dataset {escape(manifest.corpus)}</title>"
    text = "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</html>"])
    files.write(folder / REPORT, text)


def _count(folder: Path, whole: bool) -> tuple[dict[str, dict[str, list[int]]], np.ndarray]:
    """Documents and tokens by year, language, source and licence; and int64[works] tokens of each work.

    Where the dataset is not `whole`, a work was taken out of the documents and tokens count as 0.
    """
    if whole:
        lengths = {split: iter(np.fromfile(folder / f"{split}.lengths", "<i4").tolist()) for split in SPLITS}
    else:
        lengths = {split: itertools.repeat(0) for split in SPLITS}
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    every = []
    file = pq.ParquetFile(folder / DOCUMENTS)
    for number in range(file.num_row_groups):
        columns = ["split", "year", "language", "source", "licence"]
        for row in file.read_row_group(number, columns=columns).to_pylist():
            tokens = sum(next(lengths[split]) for split in SPLITS if row["split"] in (split, "both"))
            every.append(tokens)
            for column in columns[1:]:
                cell = groups[column]["unknown" if row[column] is None else str(row[column])]
                cell[0] += 1
                cell[1] += tokens
    return groups, np.array(every, np.int64)


def _works(folder: Path) -> str:
    """The works with the numbers by which they can be taken down (``remove=number:…``)."""
    rows = list(itertools.islice(works(folder, []), MOST_WORKS))
    more = pq.ParquetFile(folder / DOCUMENTS).metadata.num_rows - len(rows)
    rest = f"<p>And {more:,} more: python -m data_prep.works shows all of them.</p>" if more else ""
    return _table(("number", "id", "title"), rows) + rest


def _account(manifest: Manifest) -> str:
    works, blocks = manifest.works, manifest.blocks
    rows = [("in", f"{works['in']:,}", f"{blocks['in']:,}")]
    for reason, count in sorted(works["dropped"].items()):
        rows.append(
            (f"work dropped: {reason}", f"{count:,}", f"{blocks['dropped'].get(f'work:{reason}', 0):,}")
        )
    for reason, count in sorted(blocks["dropped"].items()):
        if not reason.startswith("work:") and count:
            rows.append((f"block dropped: {reason}", "", f"{count:,}"))
    rows.append(("out", f"{works['out']:,}", f"{blocks['out']:,}"))
    single = Counter({k: n for k, n in blocks["dropped"].items() if not k.startswith("work:") and n})
    plots = _bars(Counter(works["dropped"]).most_common(), "works left out, by reason")
    plots += _bars(single.most_common(), "blocks left out of works that stay, by reason")
    return _table(("", "works", "blocks"), rows) + plots


def _rights(manifest: Manifest) -> str:
    """Works by licence, access, legal basis and opt-out; works that opted out are left out of the dataset."""
    rows = [
        (name.replace("_", " "), value, f"{count:,}")
        for name, counts in manifest.rights.items()
        for value, count in sorted(counts.items())
    ]
    return _table(("", "value", "works"), rows)


def _counts(counts: dict[str, int], label: str) -> str:
    rows = [(kind, f"{count:,}") for kind, count in sorted(counts.items()) if count]
    return _table(("kind", label), rows) if rows else "<p>None found.</p>"


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    top = "".join(f"<th>{escape(item)}" for item in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(item))}" for item in row) for row in rows)
    return f"<table><tr>{top}{body}</table>"


def _histogram(lengths: np.ndarray) -> str:
    """Works by tokens, on a logarithmic axis."""
    if not len(lengths):
        return "<p>No documents.</p>"
    edges = np.unique(np.geomspace(max(lengths.min(), 1), lengths.max() + 1, BINS).astype(np.int64))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1])
    counts, _ = np.histogram(lengths, edges)
    names = [
        f"{low:,}–{high - 1:,}" for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    return _bars(list(zip(names, counts.tolist(), strict=True)), "works by tokens")


def _bars(rows: list[tuple[str, int]], label: str) -> str:
    """A bar chart with its numbers."""
    if not rows:
        return ""
    rows = [
        (name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}", count)
        for name, count in rows
    ]
    most, step, width = max(count for _, count in rows) or 1, 22, 420
    left, height = CHARACTER * max(len(name) for name, _ in rows) + 16, step * len(rows) + 6
    lines = [
        f"<figure><figcaption>{escape(label)}</figcaption>",
        f'<svg viewBox="0 0 {left + width + 110} {height}" width={left + width + 110} role=img '
        f'aria-label="{escape(label)}">',
    ]
    for place, (name, count) in enumerate(rows):
        top, size = place * step + 4, round(width * count / most, 1)
        lines.append(f"<text x={left - 8} y={top + 12} text-anchor=end>{escape(name)}</text>")
        lines.append(f'<rect x={left} y={top} width="{size}" height=15 rx=2 />')
        lines.append(f'<text class=n x="{left + size + 6}" y={top + 12}>{count:,}</text>')
    return "".join([*lines, "</svg></figure>"])
