"""What `launch/community.py` does: serve the app, invite, export, withdraw."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import uvicorn
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session as Database

from conf.errors import InputError
from conf.schema.community import CommunityConfig
from elm_megatron.chat.read import data_file, listing
from elm_megatron.community import beside, database, identity, items, lineage, settings, sheet
from elm_megatron.community.app import make
from elm_megatron.community.export import export
from elm_megatron.community.exports import MANIFEST
from elm_megatron.community.tables import Item, Person

SQLITE = "community.sqlite"


def community_command(config: CommunityConfig) -> int:
    """Do what is asked; returns the exit status.

    Raises:
        InputError: a name is not known, or a file of the folder is not what it must be.
    """
    folder = Path(config.dir).absolute()
    if (config.export or config.withdraw) and not (config.database or (folder / SQLITE).is_file()):
        raise InputError(f"dir={config.dir}: has no {SQLITE}; nobody has used the app there yet.")
    found = settings.read(folder)
    if config.source is not None:
        with beside.server(config.source_list, Path(config.runs_dir)) as models:
            return _serve(config, folder, settings.read(folder, models))
    if config.invite:
        token = identity.invite(identity.secret(folder), config.invite)
        print(f"http://{config.host}:{config.port}/invitation/{token}")
        print(f"valid once, for {identity.INVITATION_DAYS} days; the role is {config.invite}")
        return 0
    engine = _opened(config, folder)
    with database.sessions(engine)() as stored:
        if config.export:
            _export(stored, folder / "exports" / config.export)
            return 0
        if config.spreadsheet:
            return _read_spreadsheet(stored, config, folder)
        if config.withdraw:
            return _withdraw(stored, config, folder)
    return _serve(config, folder, found)


def export_once(folder: Path) -> None:
    """Make an export of the app's database, unless it is there: a chain that goes on reads the same one.

    Args:
        folder: `<app's folder>/exports/<name>`.

    Raises:
        InputError: there is no app in that folder, or nothing may be exported.
    """
    home = folder.parent.parent
    if (folder / MANIFEST).is_file():
        print(f"community: {folder} is there already")
        return
    if not (home / SQLITE).is_file():
        raise InputError(
            f"stages=[community,…]: {home} has no {SQLITE}; start the app with launch/community.py."
        )
    with database.sessions(_opened(CommunityConfig(dir=str(home)), home))() as stored:
        _export(stored, folder)


def _opened(config: CommunityConfig, folder: Path) -> Engine:
    return database.opened(config.database or f"sqlite:///{folder / SQLITE}")


def _export(stored: Database, folder: Path) -> None:
    manifest = export(stored, folder)
    for name, facts in manifest["files"].items():
        print(f"{facts['rows']:6} rows  {folder / name}")
    print(f"left out: {manifest['left_out'] or 'nothing'}", flush=True)


def _serve(config: CommunityConfig, folder: Path, found: settings.Settings) -> int:
    """Serve the app until Ctrl-C."""
    engine = _opened(config, folder)
    address = f"http://{config.host}:{config.port}"
    if not found.models:
        print(f"note: {folder / 'models.yaml'} names no model, so nothing can be asked yet")
    print(f"the app: {address}   invitations: launch/community.py invite=contributor", flush=True)
    if config.source is not None:
        page = f"{address}/invitation/{identity.invite(identity.secret(folder), 'curator')}"
        print(f"log in, once: {page}", flush=True)
        if sys.stdout.isatty() and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            webbrowser.open(page)
    app = make(found, engine, Path(config.runs_dir).absolute())
    # No access log: it would hold addresses of people.
    uvicorn.run(app, host=config.host, port=config.port, access_log=False, log_level="warning")
    return 0


def _read_spreadsheet(stored: Database, config: CommunityConfig, folder: Path) -> int:
    """Take the spreadsheet of students into the database, with its raters."""
    path = data_file(str(config.spreadsheet), "spreadsheet")
    counts = sheet.take(stored, path, identity.secret(folder), settings.read(folder))
    stored.commit()
    print(f"{path.name}: {listing(counts) or 'nothing new'}")
    return 0


def _withdraw(stored: Database, config: CommunityConfig, folder: Path) -> int:
    """Take back a text or all of a person, and name what was made with it."""
    wanted = str(config.withdraw)
    if wanted.startswith("item:"):
        number = wanted.removeprefix("item:")
        item = stored.get(Item, int(number)) if number.isdecimal() and len(number) < 10 else None
        if item is None:
            raise InputError(f"withdraw={wanted}: there is no such item.")
        names = [f"item {item.id}"]
        items.withdraw_item(stored, item, "curator")
    else:
        person = stored.scalar(select(Person).where(Person.pseudonym == wanted))
        if person is None:
            raise InputError(f"withdraw={wanted}: no such pseudonym; write item:NUMBER for one text.")
        names = items.exported_names(stored, person)
        items.withdraw_person(stored, person)
    stored.commit()
    lineage.note_withdrawn(folder / "exports", names)
    used = lineage.used_in(folder / "exports", Path(config.runs_dir), names)
    print(f"withdrawn: {', '.join(names) or 'nothing was given'}")
    for place in used:
        print(f"it was used in {place}")
    if not used:
        print("it was used in no export")
    return 0
