"""Progress for a person: a bar on a terminal, a line per stage in a log, and the tables at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from data_prep.manifest import Manifest


class Progress:
    """Tells on stderr what a build does; silent on every rank but the first."""

    def __init__(self, speaks: bool = True) -> None:
        """Only the rank that `speaks` writes anything."""
        self._console = Console(stderr=True, quiet=not speaks, highlight=False)

    def log(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Show a stage while it runs; yields a function that is told (done, of how many)."""
        started = time.perf_counter()
        last = ""
        columns = (
            TextColumn(f"{name:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        with Bar(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as bar:
            task = bar.add_task(name, total=None)

            def report(done: int, total: int) -> None:
                nonlocal last
                last = f" {done} {unit}"
                bar.update(task, completed=done, total=total)

            yield report
        self.log(f"{name:<10}{last:<20} {time.perf_counter() - started:7.1f} s")


def show(manifest: Manifest) -> None:
    """Print a dataset's tables on stdout: works and blocks in = out + dropped, and the splits."""
    console = Console(highlight=False)
    console.print(f"{manifest.corpus}: every work and block accounted for", style="italic", markup=False)
    table = Table()
    for heading in ("", "works", "blocks"):
        table.add_column(heading, justify="right" if heading else "left")
    works, blocks = manifest.works, manifest.blocks
    table.add_row("in", str(works["in"]), str(blocks["in"]))
    for reason, count in sorted(works["dropped"].items()):
        inside = blocks["dropped"].get(f"work:{reason}", 0)
        table.add_row(f"dropped, work {reason}", str(count), str(inside) if inside else "")
    for reason, count in sorted(blocks["dropped"].items()):
        if not reason.startswith("work:") and count:
            table.add_row(f"dropped, block {reason}", "", str(count))
    table.add_row("out", str(works["out"]), str(blocks["out"]), style="bold")
    console.print(table)
    table = Table()
    for heading in ("split", "documents", "tokens", "bytes", "unigram entropy (nats)"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in manifest.splits.items():
        table.add_row(
            name,
            f"{split.documents:,}",
            f"{split.tokens:,}",
            f"{split.bytes:,}",
            f"{split.unigram_entropy:.3f}",
        )
    console.print(table)
    lines = {
        "languages": manifest.languages,
        "redactions (values never kept)": manifest.redactions,
        "characters repaired": manifest.repairs,
        "licences": manifest.licences,
        "access": manifest.rights["access"],
        "opt-outs": manifest.rights["opt_out"],
    }
    for name, counts in lines.items():
        text = ", ".join(f"{key} {count}" for key, count in sorted(counts.items()) if count)
        console.print(f"{name}: {text or 'none'}", markup=False, soft_wrap=True)
    for note in manifest.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"in {manifest.folder}", markup=False, soft_wrap=True)
