"""Whose a run folder is: it belongs to the verb and the sources that made it. Torch-free.

A command under a name in use is refused before a byte changes. A default name that another source has taken
gets a short digest behind it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError
from conf.names import MODEL_FOLDER, folder_name, joined_names
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import RUNS, locate, split_step

MADE_FROM = "made_from"  # run.json: the sources, each with its path and its path from the run folder
SOURCE_DECIDES = ("export", "import_hf", "eval", "serve")  # the other verbs compare their whole configuration
# What the verbs write into a run folder. A folder without a record that holds anything else is not a run's.
RUN_FILES = {"config.yaml", "run.json", "lock", "logs", "rendezvous", "checkpoints", "tensorboard", "adapter"}
RUN_FILES |= {"metrics.jsonl", "metrics.lost.jsonl", "valid.jsonl", "samples.jsonl", "curves.png", "model"}
RUN_FILES |= {"model.gguf", "README.md", "tokenizer", "evaluation.json", "evaluation.md", "evaluation.png"}
RUN_FILES |= {"contaminated.jsonl", "evaluations", "report.html", "profile", "notices"}
RUN_FILES |= {"serving.json", "serve.key", "comparison.json", "trace"}
# A key that only one verb's config.yaml has.
VERB_KEYS = {"tune": "finetune", "train": "pretrain", "shard_gb": "export", "tasks": "eval"}
VERB_KEYS |= {"preprocess": "preprocess", "idle_minutes": "serve"}


class OtherSource(InputError):
    """The folder was made by the same verb from another source."""


def refuse_others(run: RunFolder, verb: str, asked: dict[str, Any]) -> None:
    """Refuse a run folder that another verb or another source has made, or that is not a run's.

    Args:
        run: the folder that would be written.
        verb: of this command.
        asked: its configuration as plain values.

    Raises:
        OtherSource: the verb is the same and what it reads is not.
        InputError: naming what the folder is.
    """
    record = run.read()
    config = _config(run)
    if not record and not config:
        _refuse_foreign(run)
        return
    owner = record.get("verb") or next((name for key, name in VERB_KEYS.items() if key in config), None)
    if owner is not None and owner != verb:
        raise InputError(
            f"run.name={asked['run']['name']}: {run.path} is a {owner} run{_progress(record)}, which {verb} "
            "does not write over; give another run.name."
        )
    before = _made_before(run, record, config)
    if verb in SOURCE_DECIDES and before and not _same(run, before, sources_of(asked)):
        raise OtherSource(
            f"run.name={asked['run']['name']}: {run.path} is the {verb} run of {_shown(before)}, and this "
            "command reads another source; give another run.name."
        )


def claim(run: Any, verb: str, asked: dict[str, Any]) -> None:
    """Make sure that a verb may write a run folder; a default name that is another source's gets a digest.

    Args:
        run: the configuration's `run`, whose name and dir may be changed.
        verb: export, import_hf or eval.
        asked: the whole configuration as plain values.

    Raises:
        InputError: the folder is another's, and the name was chosen by the user.
    """
    try:
        refuse_others(RunFolder(run.dir), verb, asked)
    except OtherSource:
        if not _is_default(run.name, verb, asked):
            raise
        paths = sorted(map(str, sources_of(asked)))
        digest = hashlib.sha256(unicodedata.normalize("NFC", "\n".join(paths)).encode()).hexdigest()[:8]
        folder, before = Path(run.dir), run.name
        run.name = f"{before}-{digest}"
        run.dir = str(folder.with_name(f"{folder.name}-{digest}"))
        refuse_others(RunFolder(run.dir), verb, asked)
        print(f"note: {before} is of another source, so this run is called {run.name}.", file=sys.stderr)


def facts(run: RunFolder, asked: dict[str, Any]) -> dict[str, Any]:
    """What run.json keeps of the sources of a run."""
    sources = sources_of(asked)
    if not sources:
        return {}
    return {MADE_FROM: [{"path": str(path), "relative": _relative(path, run)} for path in sources]}


def sources_of(asked: dict[str, Any]) -> list[Path]:
    """The folders that a configuration's `source` and `adapter` name, each with its links resolved."""
    given = asked.get("source") or []
    texts = [str(one) for one in ([given] if isinstance(given, str) else given)]
    return [_resolved(text) for text in [*sorted(texts), *filter(None, [asked.get("adapter")])]]


def is_moved(run: RunFolder, before: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether the source of a tuning run is the one it was made from, under another path.

    Args:
        run: its record knows the folder.
        before: its config.yaml.
        asked: the configuration of this command, as plain values.
    """
    known, was, wants = run.read().get(MADE_FROM), before.get("source"), asked.get("source")
    if not known or not isinstance(was, str) or not isinstance(wants, str):
        return False
    return split_step(was)[1] == split_step(wants)[1] and _same(run, known, sources_of(asked))


def _resolved(text: str) -> Path:
    """The folder of a source, which may be gone, or still to be made; an export run stands for its model."""
    try:
        folder = locate(text).resolve()
    except InputError:
        path = Path(text).expanduser()
        folder = (path if len(path.parts) > 1 or path.is_absolute() else RUNS / path).absolute().resolve()
    is_export = folder.name == MODEL_FOLDER and (folder.parent / "run.json").is_file()
    return folder.parent if is_export else folder


def _relative(path: Path, run: RunFolder) -> str:
    return os.path.relpath(path, run.path.resolve())


def _config(run: RunFolder) -> dict[str, Any]:
    try:
        config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _made_before(run: RunFolder, record: dict[str, Any], config: dict[str, Any]) -> list[dict[str, str]]:
    """The sources of an earlier command; of a run without the key, what its two files say."""
    if MADE_FROM in record:
        return record[MADE_FROM]
    made = record.get("export") or record.get("import") or {}
    paths = sources_of(config)
    if made.get("source"):
        paths = [_resolved(made["source"]), *([Path(made["adapter"])] if made.get("adapter") else [])]
    return [{"path": str(path), "relative": _relative(path, run)} for path in paths]


def _same(run: RunFolder, before: Sequence[dict[str, str]], now: Sequence[Path]) -> bool:
    return len(before) == len(now) and all(
        old["path"] == str(path) or old["relative"] == _relative(path, run)
        for old, path in zip(before, now, strict=True)
    )


def _is_default(name: str, verb: str, asked: dict[str, Any]) -> bool:
    """Whether nobody chose the name: it is the verb's default, with a sweep's key=value behind it."""
    source = asked.get("source") or ""
    named = joined_names(source) if verb in ("eval", "serve") else folder_name(str(source))
    default = f"{verb.removesuffix('_hf')}-{named}"
    return name == default or bool(re.match(re.escape(default) + r"-[\w.]+=", name))


def _refuse_foreign(run: RunFolder) -> None:
    try:
        names = sorted(item.name for item in run.path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    foreign = [name for name in names if name not in RUN_FILES and not name.startswith(".")]
    if foreign:
        raise InputError(
            f"run.dir={run.path}: the folder exists and is no run's, it holds {foreign[0]!r}; give another "
            "run.name or run.dir."
        )


def _progress(record: dict[str, Any]) -> str:
    step, state = record.get("step"), record.get("state")
    parts = [f"step {step}"] if step is not None else []
    parts += [state] if state else []
    return f" ({', '.join(parts)})" if parts else ""


def _shown(before: Sequence[dict[str, str]]) -> str:
    return ", ".join(entry["path"] for entry in before)
