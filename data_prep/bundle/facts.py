"""What the records of a dataset say of it: the numbers of every published document, none of them typed.

Works are counted by the manifest. Tokens by group come from `documents.parquet` and the `.idx` files. Columns
that an older dataset lacks read as unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf.schema.institution import Institution
from data_prep.documents import DOCUMENTS, SCHEMA
from data_prep.indexed import read_index
from data_prep.manifest import LINEAGE, SPLITS, Manifest

GROUPS = ("language", "source", "licence", "access", "rights_basis", "opt_out")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Group:
    """Works and tokens of one language, source or licence; tokens is None where it cannot be told."""

    works: int
    tokens: int | None


@dataclass(frozen=True)
class Source:
    """Where works, or examples of chat data, come from.

    Attributes:
        name: of the source or the file.
        category: of conf.schema.institution.CATEGORIES.
        asked: the key of the institution's YAML that would say so, where nobody has said so.
        works: works kept, or examples; None is unknown.
        tokens: of them.
        hosts: the servers it was fetched from.
        kind: how it was fetched: oai, pages, or "" for a folder.
        of: the dataset or the tuning that it belongs to.
        what: `works` or `examples`.
    """

    name: str
    category: str
    asked: str | None
    works: int | None
    tokens: int | None
    hosts: tuple[str, ...] = ()
    kind: str = ""
    of: str = ""
    what: str = "works"


@dataclass(frozen=True)
class Facts:
    """A dataset.

    Attributes:
        manifest: its description.
    """

    manifest: Manifest

    @property
    def name(self) -> str:
        """Of its corpus."""
        return self.manifest.corpus

    def setting(self, key: str, default: Any = None) -> Any:
        """A setting of the build by its dotted key; older datasets lack some."""
        value: Any = self.manifest.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    @cached_property
    def groups(self) -> dict[str, dict[str, Group]]:
        """Works and tokens by the values of each of `GROUPS`, largest first."""
        found = {}
        for column in GROUPS:
            works = self._works(column)
            tokens = self._tokens(column)
            names = sorted(works, key=lambda name: (-works[name], name))
            found[column] = {name: Group(works[name], tokens.get(name)) for name in names}
        return found

    def _works(self, column: str) -> dict[str, int]:
        """The manifest's own counts."""
        manifest = self.manifest
        counted = {"language": manifest.languages, "source": manifest.sources, **manifest.rights}
        return dict(counted[column])

    def _tokens(self, column: str) -> dict[str, int]:
        lengths = self._lengths
        if lengths is None or column not in self._columns:
            return {}
        totals: Counter[str] = Counter()
        for name, count in zip(_named(self._columns[column]), lengths, strict=True):
            totals[name] += count
        return dict(totals)

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        """The columns of `documents.parquet` without the text; {} where it cannot be read."""
        path = self.manifest.folder / DOCUMENTS
        try:
            there = pq.read_schema(path).names
            wanted = [name for name in (*GROUPS, "year", "split", "title") if name in there]
            table = pq.read_table(path, columns=wanted)
        except (OSError, pa.ArrowException):
            return {}
        return {name: table[name].to_pylist() for name in wanted}

    @cached_property
    def _lengths(self) -> list[int] | None:
        """Tokens of each work of `documents.parquet`; None where the two do not fit, as after a take-down."""
        splits = self._columns.get("split")
        if splits is None:
            return None
        in_split, total = np.array(splits, dtype=str), np.zeros(len(splits), np.int64)
        for split in SPLITS:
            rows = np.flatnonzero((in_split == split) | (in_split == "both"))
            try:
                lengths = read_index(self.manifest.prefix(split).with_suffix(".idx")).lengths
            except (OSError, ValueError):
                return None
            if len(lengths) != len(rows):
                return None
            total[rows] += lengths
        return total.tolist()

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns of `documents.parquet`; the usual ones where it is gone."""
        try:
            return list(pq.read_schema(self.manifest.folder / DOCUMENTS).names)
        except (OSError, pa.ArrowException):
            return list(SCHEMA.names)

    @cached_property
    def years(self) -> tuple[int, int] | None:
        """First and last year of the works, where known."""
        known = [year for year in self._columns.get("year", []) if year is not None]
        return (min(known), max(known)) if known else None

    def without(self, column: str) -> int | None:
        """Works whose year, title or licence is missing; None where that cannot be told."""
        values = self._columns.get(column)
        return None if values is None else sum(value in (None, "", UNKNOWN) for value in values)

    @cached_property
    def builds(self) -> list[dict[str, Any]]:
        """The builds of the folder, the present one last, as `lineage.jsonl` has them."""
        path = self.manifest.folder / LINEAGE
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines if line.strip()]
        except (OSError, ValueError):
            return []

    @property
    def built(self) -> str | None:
        """The day of the build; None for one of an earlier version, which did not keep it."""
        return self.builds[-1].get("built") if self.builds else None

    @property
    def acquired(self) -> tuple[str, str] | None:
        """First and last day on which raw files came: their modification times."""
        days = self.builds[-1].get("acquired") if self.builds else None
        return tuple(days) if days else None

    @cached_property
    def servers(self) -> dict[str, dict[str, Any]]:
        """The servers that works were harvested from, as the settings name them."""
        return {
            str(source.get("name")): source
            for source in self.setting("corpus.harvest.sources", [])
            if isinstance(source, dict)
        }

    def sources(self, institution: Institution) -> Iterator[Source]:
        """Each source of works with its category."""
        for name, group in self.groups["source"].items():
            server = self.servers.get(name)
            said = institution.sources.get(name)
            asked = None if server or said else f"sources.{name}"
            address = urlsplit(str(server.get("url", ""))).netloc if server else ""
            hosts = tuple(
                dict.fromkeys(filter(None, [address, *(server.get("hosts", []) if server else [])]))
            )
            kind = str(server.get("kind", "oai")) if server else ""
            category = said or ("crawled" if server else "other")
            yield Source(name, category, asked, group.works, group.tokens, hosts, kind, self.name)

    def dropped(self, *reasons: str) -> int:
        """Works left out for any of these reasons."""
        return sum(self.manifest.dropped.get(reason, 0) for reason in reasons)


def _named(values: list[Any]) -> list[str]:
    return [UNKNOWN if value in (None, "") else str(value) for value in values]
