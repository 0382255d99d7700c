"""What `launch/trace_answer.py` does: make the indexes that are missing, then trace the answers given."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from conf.errors import InputError
from conf.schema.trace import TraceConfig
from data_prep.progress import Progress
from elm_megatron.trace import show
from elm_megatron.trace.datasets import Traced, datasets_of
from elm_megatron.trace.index import Index, Outdated, build, without_gone
from elm_megatron.trace.suffixes import EXTRA
from elm_megatron.trace.tracer import Tracer


def trace_command(config: TraceConfig) -> int:
    """Trace the answers that are given; returns the exit status.

    Raises:
        InputError: the model, its dataset or an answer cannot be read, or an index cannot be written.
    """
    for library in ("pyarrow", "sentencepiece"):
        if find_spec(library) is None:
            raise InputError(f"trace_answer needs {library}, which is not installed: {EXTRA}.")
    given = _given(config)  # before an index is made, which may take minutes
    datasets = datasets_of(config.source, config.data.dir, config.index_dir)
    progress = Progress()
    for one in datasets:
        if one.changed:
            progress.log(
                f"note: {one.manifest.folder} was built again, or a work was taken down, since the model was "
                "trained; what is not in it any more is not found"
            )
    tracer = Tracer([ready_index(one, progress) for one in datasets])
    for text in given() if given else _asked():
        trace = tracer.trace(text, config.min_tokens)
        if config.json:
            print(json.dumps(trace.as_json(config.works), indent=1), flush=True)
        else:
            show.show(trace, Console(highlight=False), config.works)
    return 0


def _given(config: TraceConfig) -> Callable[[], Iterator[str]] | None:
    """What reads the answer that was given; None for a terminal, where people paste some.

    Raises:
        InputError: the file cannot be read.
    """
    if config.text is not None or config.file is not None:
        text = config.text if config.text is not None else _read(str(config.file))
    elif sys.stdin is not None and sys.stdin.isatty():
        return None
    else:
        text = _decoded(sys.stdin.buffer.read() if sys.stdin is not None else b"", "standard input")
    return lambda: iter([text] if text.strip() or config.json else [])


def _read(name: str) -> str:
    try:
        return _decoded(Path(name).expanduser().read_bytes(), name)
    except OSError as error:
        raise InputError(f"file={name}: cannot be read ({error.strerror}).") from error


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is not UTF-8 text (byte {error.start}).") from error


def _asked() -> Iterator[str]:
    """Answers that a person pastes; an empty line ends each, Ctrl-D ends the command."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    print("Paste an answer and end it with an empty line; Ctrl-D ends.", file=sys.stderr)
    lines: list[str] = []
    for line in sys.stdin:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines)
            lines = []
    if lines:
        yield "".join(lines)


def ready_index(one: Traced, progress: Progress) -> Index:
    """The index of a dataset: the one that exists, without works that are gone, or a new one.

    Raises:
        InputError: it cannot be made.
    """
    for place in one.places:
        if not place.is_dir():
            continue
        try:
            index = Index.open(place, one.manifest)
        except Outdated as error:
            progress.log(f"{error} It is made again.")
            continue
        if index.is_current:
            return index
        progress.log(f"{place}: {len(index.gone)} works are gone from the dataset and leave the index")
        try:
            with progress.stage("index", "suffixes") as report:
                without_gone(index, report)
        except OSError as error:
            progress.log(f"{place}: cannot be written ({error.strerror})")
            continue
        return Index.open(place, one.manifest)
    place = _writable(one.places)
    with progress.stage("index", "tokens") as report:
        build(place, one.manifest, report)
    index = Index.open(place, one.manifest)
    if not index.is_current:  # a take-down that was killed has left a row
        without_gone(index, lambda done, total: None)
        index = Index.open(place, one.manifest)
    progress.log(f"indexed {one.manifest.splits['train'].tokens:,} tokens in {place}")
    return index


def _writable(places: tuple[Path, ...]) -> Path:
    """The first place that can be written.

    Raises:
        InputError: there is none.
    """
    reason = ""
    for place in places:
        probe = place.parent / f".{place.name}.{os.getpid()}.probe.tmp"
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe.mkdir()
            probe.rmdir()
            return place
        except OSError as error:
            reason = error.strerror or str(error)
    raise InputError(
        f"{places[-1]}: cannot be written ({reason}); give index_dir=<a folder with room for the index>."
    )
