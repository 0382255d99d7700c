"""Everything of `python launch/community.py`: the web app, or one task of its curator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from conf import typed
from conf.errors import require
from conf.limits import Within

TASKS = ("source", "invite", "export", "spreadsheet", "withdraw")
Port = Annotated[int, Within(ge=1, le=65535)]


@dataclass
class CommunityConfig:
    """The web app, or one task of a curator.

    Attributes:
        dir: folder of the app: database, key, rubric, consent text, exports; readable by its owner alone.
        database: address of a PostgreSQL database, as postgresql+psycopg://host/name; null is SQLite in the
            folder.
        host: address that the app listens on; behind a proxy with TLS it stays 127.0.0.1.
        port: its port.
        runs_dir: folder of the runs, which a withdrawal looks through.
        source: serve a run or a Hugging Face folder, or a list of two, beside the app, and open the chat page
            on it; null asks the models of models.yaml.
        invite: print an invitation link for a contributor, reviewer, moderator or curator; null is none.
        export: write what may be used for tuning into a folder of this name below exports/; null is none.
        spreadsheet: take the dialogues and ratings of an .xlsx of students into the database; null is none.
        withdraw: take back all of a pseudonym, or one text as item:NUMBER; null is none.
    """

    dir: str = "community"
    database: str | None = None
    host: str = "127.0.0.1"
    port: Port = 8601
    runs_dir: str = "runs"
    source: str | list[str] | None = None
    invite: str | None = None
    export: str | None = None
    spreadsheet: str | None = None
    withdraw: str | None = None

    @property
    def source_list(self) -> list[str]:
        """The models to serve, in the order given."""
        return [self.source] if isinstance(self.source, str) else list(self.source or [])

    def check(self) -> None:
        """Refuse several tasks at once, and export names that are paths."""
        typed.check(self)
        tasks = [key for key in TASKS if getattr(self, key) is not None]
        require(len(tasks) < 2, f"{' and '.join(tasks)}: give one of them at a time.")
        name = self.export
        require(
            name is None or (name not in ("", ".", "..") and "/" not in name),
            f"export={name}: give a name, which becomes a folder below {self.dir}/exports.",
        )
