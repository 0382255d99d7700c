"""A notice as data, as text for people and as JSON: who must be told about one work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from elm_megatron.sources.affected import Affected, Found

HELD, LEFT_OUT = "in a dataset", "left out of the datasets"
UNSURE, SKIPPED = "Nobody knows: the beginnings of these runs are lost", "Not searched"
LISTS = {
    "model": "models",
    "adapter": "adapters",
    "export": "exports",
    "service": "services",
    "copy": "copies",
}


@dataclass(frozen=True)
class Dataset:
    """A dataset folder, and what it has to do with a work.

    Attributes:
        path: of the folder.
        holds: its documents have the work now.
        held: a build that stood there may have held it.
        stale: why it must be built again, or "".
        tokenizer: sha256 of its tokenizer.
        owner: the user whose files they are.
        dropped: the reason for which the work was left out, or "".
    """

    path: Path
    holds: bool
    held: bool
    stale: str
    tokenizer: str
    owner: str
    dropped: str = ""


@dataclass
class Notice:
    """Who must be told about one work; all paths absolute.

    Attributes:
        id: of the work.
        title: as a dataset has it, "" after a take-down.
        state: `HELD`, `LEFT_OUT`, or how it was withdrawn, with the date in `date`.
        date: of the withdrawal, ``YYYY-MM-DD``, or "".
        made: the day of the notice.
        manifests: of the builds that may hold the work.
        datasets: that hold it, or held it.
        tokenizers: sha256 of the tokenizers trained on it, with the datasets that use each.
        found: models, adapters, exported folders and copies.
    """

    id: str
    title: str = ""
    state: str = LEFT_OUT
    date: str = ""
    made: str = ""
    manifests: set[str] = field(default_factory=set)
    datasets: list[Dataset] = field(default_factory=list)
    tokenizers: dict[str, list[Path]] = field(default_factory=dict)
    found: Found = field(default_factory=Found)

    def recipients(self) -> list[tuple[str, str, Path]]:
        """(who, date, folder) of every export that was given away."""
        return [
            (str(item.get("who")), str(item.get("date") or ""), one.path)
            for one in self.found.affected
            for item in one.recipients
        ]

    def of_kind(self, *kinds: str) -> list[Affected]:
        """What was found of some kinds."""
        return [one for one in self.found.affected if one.kind in kinds]

    def owners(self) -> list[str]:
        """The users whose datasets and models these are."""
        folders = [one.owner for one in self.datasets if one.holds or one.held]
        return sorted({*folders, *(one.owner for one in self.found.affected)} - {""})

    def text(self) -> str:
        """The notice for people, in Markdown."""
        return "\n".join(_markdown(self)) + "\n"

    def as_json(self) -> dict[str, Any]:
        """The notice for programs."""
        return {
            "schema": 1,
            "id": self.id,
            "title": self.title,
            "state": self.state,
            "withdrawn": self.date,
            "made": self.made,
            "tell": {
                "recipients": [
                    {"who": who, "date": date, "export": str(path)} for who, date, path in self.recipients()
                ],
                "owners": self.owners(),
            },
            "manifests": sorted(self.manifests),
            "datasets": [{**asdict(one), "path": str(one.path)} for one in self.datasets],
            "tokenizers": {name: list(map(str, paths)) for name, paths in self.tokenizers.items()},
            **{name: [_entry(one) for one in self.of_kind(kind)] for kind, name in LISTS.items()},
            "unsure": list(map(str, self.found.unsure)),
            "not_searched": self.found.skipped,
        }


def _entry(one: Affected) -> dict[str, Any]:
    return {**asdict(one), "path": str(one.path), "manifests": sorted(one.manifests)}


def summary(notice: Notice) -> str:
    """The counts of a notice in one line."""
    counts = [
        (len([one for one in notice.datasets if one.holds or one.held]), "datasets"),
        (len(notice.tokenizers), "tokenizers"),
        (len(notice.of_kind("model")), "models"),
        (len(notice.of_kind("adapter")), "adapters"),
        (len(notice.of_kind("export")), "exported models"),
        (len(notice.of_kind("service")), "services"),
        (len(notice.of_kind("copy")), "copies"),
        (len(notice.recipients()), "recipients"),
    ]
    return f"{notice.id}, {notice.state}: " + ", ".join(f"{name} {count}" for count, name in counts)


def _markdown(notice: Notice) -> Iterator[str]:
    withdrawn = f" on {notice.date}" if notice.date else ""
    yield f"# Notice about the work {_code(notice.id)}"
    yield ""
    title = _plain(notice.title) or "Title not kept"
    yield f"{title}. State: {notice.state}{withdrawn}. Made on {notice.made}."
    yield from ("", "## Who must be told", "")
    told = [
        f"- {_plain(who)}, who has {_code(path)}" + (f" since {date}" if date else "")
        for who, date, path in notice.recipients()
    ]
    yield from told or ["- no recipient of an exported model is recorded"]
    silent = [one for one in notice.of_kind("export") if not one.recipients]
    yield from (f"- whoever has {_code(one.path)}: no recipient is recorded" for one in silent)
    yield from (
        f"- the user {_plain(name)}, who owns folders that are named below" for name in notice.owners()
    )
    for title, rows in (
        ("Datasets", [_dataset_row(one) for one in notice.datasets]),
        ("Tokenizers trained on it", [_tokenizer_row(*item) for item in notice.tokenizers.items()]),
        ("Models", _rows(notice, "model")),
        ("Adapters", _rows(notice, "adapter")),
        ("Exported models", _rows(notice, "export")),
        ("Services, whose users were served one of these", _rows(notice, "service")),
        ("Copies outside of runs", _rows(notice, "copy")),
        (UNSURE, [f"- {_code(path)}" for path in notice.found.unsure]),
        (SKIPPED, [f"- {_plain(reason)}" for reason in notice.found.skipped]),
    ):
        if rows or title not in (UNSURE, SKIPPED):
            yield from ("", f"## {title}", "", *(rows or ["None found."]))
    yield from ("", "A model that has learnt from a work cannot be made to forget it by deleting files.")


def _rows(notice: Notice, kind: str) -> list[str]:
    return [
        f"- {_code(one.path)}" + (f" ({one.state})" if one.state else "") + f", of {_plain(one.owner)}"
        for one in notice.of_kind(kind)
    ]


def _dataset_row(one: Dataset) -> str:
    if one.holds:
        said = "holds it"
    elif one.stale:
        said = f"its .bin holds it: {one.stale}, so it must be built again"
    elif one.held:
        said = "an earlier build held it, the present one does not"
    else:
        said = "never held it"
    reason = f"; left out with the reason {one.dropped}" if one.dropped else ""
    return f"- {_code(one.path)}: {said}{reason}; of {_plain(one.owner)}"


def _tokenizer_row(digest: str, folders: list[Path]) -> str:
    where = ", ".join(map(_code, folders)) or "no dataset that is there now"
    return f"- sha256 {_code(digest)}, used by {where}"


def _code(text: object) -> str:
    """Text between backticks, whatever it holds."""
    plain = _plain(text)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    pad = " " if plain[:1] == "`" or plain[-1:] == "`" else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _plain(text: object) -> str:
    """On one line, without the beginning of markup."""
    return " ".join(str(text).split()).replace("<", "&lt;")
