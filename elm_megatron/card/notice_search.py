"""Who must be told about a work: what the corpus, the datasets beside it, their lineage and the runs know."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from conf.errors import InputError
from conf.schema.preprocess import PreprocessConfig
from data_prep import files, opt_out, takedown
from data_prep.documents import DOCUMENTS, DROPPED
from data_prep.journal import read_journal
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import LINEAGE, Manifest, builds, lineage
from data_prep.withdrawn import TAKEN_DOWN, Withdrawn, of, since
from elm_megatron.bundle import withdrawn as card_section
from elm_megatron.card.notice_text import HELD, Dataset, Notice, summary
from elm_megatron.sources import affected
from elm_megatron.sources.affected import Found, owner_of

FOLDER = "notices"  # beside the folders of the datasets
DEPTH = 3  # levels of folders, below that of the datasets, in which a moved dataset is looked for
NEAR, CLOSE = 3, 0.6  # ids that a refusal names, and how like they must be


class Known:
    """What a corpus, the datasets beside it and the runs know.

    Attributes:
        config: `notice` is the name that was asked for.
        datasets: the folders of all datasets.
        withdrawals: of the corpus and of the datasets.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        """Look for the datasets and read who withdrew."""
        self.config, self.skipped = config, []
        self.parent = config.data_dir().parent
        self.roots = [Path(name).expanduser().absolute() for name in (config.runs_dir, *config.look_in)]
        self.datasets = list(dict.fromkeys(self._datasets()))
        root = config.corpus.folder()
        self.folders = [*([root] if root.is_dir() else []), *self.datasets]
        self.withdrawals = of([*self.folders, config.data_dir()])
        self._ids = {folder: self._ids_of(folder) for folder in self.datasets}
        self._own = {folder: of([folder]) for folder in self.datasets}
        self._dropped = {folder: _dropped(folder) for folder in self.datasets}
        self._found: dict[frozenset[str], Found] = {}

    def _datasets(self) -> Iterator[Path]:
        linked = [path.parent for path in sorted(self.parent.glob(f"*/{MANIFEST}"))]  # also through links
        for root in dict.fromkeys(path.resolve() for path in [self.parent, *self.roots, *linked]):
            for name, folders, names in os.walk(root):
                folder = Path(name)
                deep = len(folder.relative_to(root).parts)
                skip = deep >= DEPTH or "run.json" in names
                folders[:] = [] if skip else sorted(item for item in folders if item[0] != ".")
                if MANIFEST in names and DOCUMENTS in names:
                    yield folder

    def _ids_of(self, folder: Path) -> dict[str, str]:
        """Titles by the ids of a dataset's works."""
        try:
            Manifest.load(folder)
            table = pq.ParquetFile(folder / DOCUMENTS).read(columns=["id", "title"])
        except (InputError, OSError, ValueError) as error:
            self.skipped.append(f"{folder}: {' '.join(str(error).split())}")
            return {}
        titles = table["title"].to_pylist() if "title" in table.column_names else [""] * len(table)
        return dict(zip(table["id"].to_pylist(), titles, strict=True))

    def ids(self) -> set[str]:
        """Every id that anything knows."""
        root = self.config.corpus.folder()
        found = {name for ids in self._ids.values() for name in ids} | {item.id for item in self.withdrawals}
        if root.is_dir():
            found |= {*read_journal(root), *takedown.raw_ids(self.config.corpus)}
        return found.union(*self._dropped.values())

    def named(self) -> list[str]:
        """The ids that ``notice`` means: an id in any spelling, the lines of a file, a number of the report.

        Raises:
            InputError: a name is nobody's.
        """
        value = str(self.config.notice)
        index, found = opt_out.index_of(self.config.corpus, ids := self.ids()), []
        for name in takedown.names_given("notice", value, self.config.data_dir()):
            works = {name} if name in ids else index.find(name)
            if not works:
                raise InputError(
                    f"notice={name}: no work of that id in {self.config.corpus.folder()} or in "
                    f"{self.parent}{_near(name, ids, index.several(name))}."
                )
            found += sorted(works)
        return list(dict.fromkeys(found))

    def notice(self, identifier: str) -> Notice:
        """Find who must be told about a work."""
        withdrawn = [item for item in self.withdrawals if item.id == identifier]
        notice = Notice(identifier, made=datetime.datetime.now(datetime.UTC).date().isoformat())
        notice.manifests = {digest for item in withdrawn for digest in item.manifests}
        for folder in self.datasets:
            self._look_at(folder, notice)
        if withdrawn:
            notice.state, notice.date = _last(withdrawn)
        if any(one.holds for one in notice.datasets):
            notice.state, notice.date = HELD, ""
        notice.found = self._search(notice.manifests)
        self._tokenizers(notice)
        return notice

    def _look_at(self, folder: Path, notice: Notice) -> None:
        """Add a dataset that holds the work, held it, or left it out."""
        try:
            manifest = Manifest.load(folder)
            past = builds(folder)
        except InputError:
            return  # said by `_ids_of`
        holds = notice.id in self._ids[folder]
        if holds:
            notice.title = notice.title or str(self._ids[folder][notice.id] or "")
            notice.manifests |= past
        dropped = self._dropped[folder].get(notice.id, "")
        own = any(item.id == notice.id and item.manifests for item in self._own[folder])
        held = own or bool(past & notice.manifests)  # an old dataset has no record of its builds
        if holds or held or dropped:
            dataset = Dataset(
                folder, holds, held, manifest.stale, manifest.tokenizer.sha256, owner_of(folder), dropped
            )
            notice.datasets.append(dataset)

    def _search(self, manifests: set[str]) -> Found:
        """What has learnt from these builds; works of one build ask the same question."""
        key = frozenset(manifests)
        if key not in self._found:
            found = affected.find(self.roots, manifests) if manifests else Found()
            found.skipped = [*self.skipped, *found.skipped]
            self._found[key] = found
        return self._found[key]

    def _tokenizers(self, notice: Notice) -> None:
        """Tokenizers that were trained on one of the builds, and the datasets that use them."""
        trained: set[str] = set()
        stale = {one.path for one in notice.datasets if one.held and one.stale}
        used: dict[str, list[Path]] = {}
        for folder in self.datasets:
            try:
                manifest = Manifest.load(folder)
            except InputError:
                continue
            used.setdefault(manifest.tokenizer.sha256, []).append(folder)
            if (manifest.settings.get("tokenizer") or {}).get("model") is None:
                trained |= _tokenizers_of(folder, manifest, notice.manifests)
                trained |= {manifest.tokenizer.sha256} if folder in stale else set()
        notice.tokenizers = {name: used.get(name, []) for name in sorted(trained)}

    def refresh_cards(self, notice: Notice) -> list[Path]:
        """Bring the cards of exported folders and their copies up to date; returns the folders."""
        done = []
        for one in notice.of_kind("export", "copy"):
            count, date = since(self.withdrawals, one.manifests)
            if one.path.is_dir() and card_section.refresh(one.path, count, date):
                done.append(one.path)
        return done


def _tokenizers_of(folder: Path, manifest: Manifest, wanted: set[str]) -> set[str]:
    """The tokenizers of a dataset's builds that are wanted, as far as they are known."""
    past = lineage(folder)
    own = past[-1] if manifest.stale and past else manifest.sha256
    found = {manifest.tokenizer.sha256} if own in wanted else set()
    path = folder / LINEAGE
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        entry = json.loads(line)
        if entry["manifest"] in wanted and entry.get("tokenizer"):
            found.add(entry["tokenizer"])
    return found


def _dropped(folder: Path) -> dict[str, str]:
    """Reasons by the ids of the works that a dataset left out."""
    try:
        table = pq.read_table(folder / DROPPED, columns=["id", "reason"])
    except (OSError, ValueError):
        return {}
    return dict(zip(table["id"].to_pylist(), table["reason"].to_pylist(), strict=True))


def _last(withdrawn: Iterable[Withdrawn]) -> tuple[str, str]:
    """How and when a work was withdrawn; a take-down says more than an opt-out."""
    found = sorted(withdrawn, key=lambda item: (item.how == TAKEN_DOWN, item.date))
    return found[-1].how, found[-1].date


def _near(name: str, ids: set[str], several: set[str]) -> str:
    """Ids that may have been meant, as the end of a sentence."""
    small, folded = name.strip().casefold(), {item.casefold(): item for item in ids}
    parts = [folded[item] for item in sorted(folded) if len(small) >= NEAR and small in item]
    alike = [folded[item] for item in difflib.get_close_matches(small, folded, NEAR, CLOSE)]
    near = list(dict.fromkeys([*sorted(several), *parts, *alike]))[:NEAR]
    return f"; near are {', '.join(near)}" if near else ""


def write(known: Known, notice: Notice) -> Iterator[str]:
    """Write a notice; returns what a person reads at once."""
    folder = known.parent / FOLDER
    digest = hashlib.sha256(notice.id.encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", notice.id)[:60].strip("-.") or "work"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write(folder / f"{name}-{digest}.md", notice.text(), mode=0o600)
        text = json.dumps(notice.as_json(), indent=1, ensure_ascii=False) + "\n"
        files.write(folder / f"{name}-{digest}.json", text, mode=0o600)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}).") from error
    yield f"notice            {folder / f'{name}-{digest}.md'}"
    yield from (f"to tell           {who}, who has {path}" for who, _, path in notice.recipients())
    yield f"                  {summary(notice)}"
