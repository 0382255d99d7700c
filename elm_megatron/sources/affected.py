"""What has learnt from a build of a dataset: models, adapters and exported folders, found by their lineage.

Run folders are looked for below some roots, under whatever name they have now. A run belongs to a build when
its record, or that of a run behind it, has the hash of the build's manifest. A folder that is no run's (a
copy, a model that was moved) is known by its card, by the hash of its weights, or by its adapter's base.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep.bundle.write import is_of_provenance
from data_prep.files import sha256
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.lineage import LOST, Stage, recorded, stages_of
from elm_megatron.sources.places import (
    ADAPTER_CONFIG,
    ADAPTER_FACTS,
    ADAPTER_FOLDER,
    is_hf_folder,
    read_json,
    run_config,
    split_step,
)

CARD = "README.md"
LARGEST_CARD = 1 << 20  # bytes
PRUNED = ("checkpoints", "logs", "tensorboard", "node_modules", "__pycache__")
WEIGHTS = ("*.safetensors", "*.gguf")
KINDS = {"pretrain": "model", "import_hf": "model", "finetune": "adapter", "export": "export"}
KINDS |= {"serve": "service"}


@dataclass(frozen=True)
class Affected:
    """A folder that has learnt from a build.

    Attributes:
        kind: `model`, `adapter`, `export`, `service` that serves one, or `copy` of one outside of a run.
        path: where it is.
        manifests: of the datasets behind it.
        owner: the user whose files they are.
        state: of the run, in words; "" for a copy.
        recipients: who has got the export, as run.json keeps it.
    """

    kind: str
    path: Path
    manifests: frozenset[str] = frozenset()
    owner: str = ""
    state: str = ""
    recipients: tuple[dict[str, Any], ...] = ()


@dataclass
class Found:
    """What a search found.

    Attributes:
        affected: in the order of their paths.
        unsure: folders whose beginnings are lost, so that nobody knows.
        skipped: what could not be read, and why.
    """

    affected: list[Affected] = field(default_factory=list)
    unsure: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def manifests_behind(stages: Sequence[Stage]) -> list[str]:
    """The manifests of the datasets that the runs behind a model have learnt from."""
    return sorted({item for stage in stages for item in _recorded(stage.record)})


def find(roots: Iterable[Path], manifests: set[str]) -> Found:
    """Everything below the roots that has learnt from a build with one of these manifests."""
    found, loose, runs = Found(), [], set()
    for folder, names in _folders(roots, found):
        if "run.json" in names:
            runs.add(folder)
            _look_at_run(folder, manifests, found)
        elif not _is_of_a_run(folder, runs) and _may_be_a_model(folder, names):
            loose.append(folder)
    weights = _weights(item.path for item in found.affected)
    bases = _bases(found.affected)
    for folder in loose:
        try:
            if held := _of_copy(folder, manifests, weights, bases):
                found.affected.append(Affected("copy", folder, frozenset(held), owner_of(folder)))
        except (InputError, OSError, ValueError) as error:
            found.skipped.append(f"{folder}: {_one_line(error)}")
    found.affected.sort(key=lambda item: str(item.path))
    return found


def owner_of(path: Path) -> str:
    """The name of the user who owns a file or folder, or the number where there is no name."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)
    except OSError:
        return ""


def _folders(roots: Iterable[Path], found: Found) -> Iterator[tuple[Path, set[str]]]:
    """Every folder below the roots once, with the names of its files.

    Links are followed where they are in a root itself: a run may be on another disk.
    """
    seen: set[Path] = set()
    for root in dict.fromkeys(path.resolve() for path in _with_links(roots)):

        def note(error: OSError) -> None:
            found.skipped.append(f"{error.filename}: {error.strerror}")

        if not root.is_dir():
            found.skipped.append(f"{root}: is no folder")
        for name, folders, names in os.walk(root, onerror=note) if root.is_dir() else ():
            folder = Path(name)
            if folder in seen:
                folders.clear()
                continue
            seen.add(folder)
            folders[:] = sorted(item for item in folders if item[0] != "." and item not in PRUNED)
            if not is_of_provenance(folder):
                yield folder, set(names)


def _with_links(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield root
        if root.is_dir():
            yield from sorted(path for path in root.iterdir() if path.is_symlink() and path.is_dir())


def _look_at_run(folder: Path, manifests: set[str], found: Found) -> None:
    run = RunFolder(folder)
    try:
        record = run.read()
        verb = str(record.get("verb") or ("export" if "export" in record else "pretrain"))
        if verb not in KINDS:
            return
        runs = _served(run) if verb == "serve" else [run]
        stages = [stage for one in runs for stage in _stages(one.path)]
        behind = {*manifests_behind(stages)}
        for one in runs:
            behind |= {*_recorded(one.read()), *_on_card(_made_in(one), manifests)}
    except (InputError, OSError) as error:
        found.skipped.append(f"{folder}: {_one_line(error)}")
        return
    if behind & manifests:
        kind, given = KINDS[verb], (record.get("export") or {}).get("recipients") or ()
        found.affected.append(
            Affected(kind, _made_in(run), frozenset(behind), owner_of(folder), _state(record), tuple(given))
        )
    elif any(stage.record.get("verb") == LOST for stage in stages):
        found.unsure.append(folder)


def _served(run: RunFolder) -> list[RunFolder]:
    """The runs and folders of the models that a service serves, where they are now."""
    given = run_config(run).get("source") or []
    sources = [split_step(str(one))[0] for one in ([given] if isinstance(given, str) else given)]
    return [RunFolder(recorded(run, one)) for one in sources]


def _made_in(run: RunFolder) -> Path:
    """What an export run made; of any other run its folder."""
    made = (run.read().get("export") or {}).get("path")
    return run.path / made if made else run.path


def _stages(folder: Path) -> list[Stage]:
    """The runs behind a model.

    Raises:
        InputError: its records do not fit together.
    """
    try:
        return stages_of(folder)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"its lineage cannot be followed ({_one_line(error)})") from error


def _recorded(record: dict[str, Any]) -> set[str]:
    """The hashes of manifests that a run's record has: of its dataset, its blend, and what is behind it."""
    parts = [part.get("manifest_sha256") for part in record.get("blend") or [] if isinstance(part, dict)]
    made = record.get("export") or record.get("import") or {}
    named = [record.get("manifest_sha256"), *parts, *(made.get("manifests") or [])]
    return {str(item) for item in named if item}


def _state(record: dict[str, Any]) -> str:
    step, state = record.get("step"), record.get("state")
    return ", ".join([*([str(state)] if state else []), *([f"step {step}"] if step else [])])


def _is_of_a_run(folder: Path, runs: set[Path]) -> bool:
    """Whether a folder is below a run's, which speaks for it; parents come before their children."""
    return any(parent in runs for parent in folder.parents)


def _may_be_a_model(folder: Path, names: set[str]) -> bool:
    return is_hf_folder(folder) or ADAPTER_CONFIG in names or any(name.endswith(".gguf") for name in names)


def _weights(folders: Iterable[Path]) -> dict[int, set[str]]:
    """Hashes by size of the weights that exports record."""
    found: dict[int, set[str]] = {}
    for folder in folders:
        record = RunFolder(folder.parent).read()
        for entry in ((record.get("export") or {}).get("files") or {}).values():
            found.setdefault(int(entry["bytes"]), set()).add(str(entry["sha256"]))
    return found


def _bases(affected: Iterable[Affected]) -> dict[str, frozenset[str]]:
    """Manifests by the fingerprint of the base of the adapters that were found."""
    found = {}
    for item in affected:
        if item.kind == "adapter" and (item.path / ADAPTER_FOLDER / ADAPTER_FACTS).is_file():
            facts = read_json(item.path / ADAPTER_FOLDER / ADAPTER_FACTS)
            for name in [facts.get("base_fingerprint"), *(facts.get("base_fingerprints") or [])]:
                if name:
                    found[str(name)] = item.manifests
    return found


def _on_card(folder: Path, manifests: set[str]) -> set[str]:
    """The manifests that the card of a folder names."""
    card = folder / CARD
    if not card.is_file() or card.stat().st_size > LARGEST_CARD:
        return set()
    text = card.read_text(encoding="utf-8", errors="replace")
    return {digest for digest in manifests if digest in text}


def _of_copy(
    folder: Path, manifests: set[str], weights: dict[int, set[str]], bases: dict[str, frozenset[str]]
) -> set[str]:
    """The manifests behind a folder that is no run's, where it is a copy of something that was found."""
    if named := _on_card(folder, manifests):
        return named
    if (folder / ADAPTER_FACTS).is_file():
        facts = read_json(folder / ADAPTER_FACTS)
        if facts.get("manifest_sha256") in manifests:
            return {str(facts["manifest_sha256"])}
        if known := bases.get(str(facts.get("base_fingerprint"))):
            return set(known)
    for pattern in WEIGHTS:
        for path in sorted(folder.glob(pattern)):
            known_hashes = weights.get(path.stat().st_size)
            if known_hashes and sha256(path) in known_hashes:
                return set(manifests)
    return set()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
