"""The app on a real PostgreSQL, which the test starts for itself. Slow: initdb takes seconds."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elm_megatron.community import database
from elm_megatron.community.export import export
from elm_megatron.serve.engines import free_port
from tests.elm_megatron.community.conftest import Community

pytest.importorskip("psycopg", reason="needs psycopg")
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL on this machine: apt install postgresql"),
]


def _as_postgres(*words: str) -> None:
    """Run a program of PostgreSQL's, which refuses to run as root."""
    demote = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    subprocess.run([*demote, str(BINARIES[-1] / words[0]), *words[1:]], check=True, capture_output=True)


def _start(folder: Path, port: int) -> None:
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    log = str(folder / "log")
    _as_postgres("pg_ctl", "-D", str(folder / "data"), "-o", options, "-l", log, "-w", "start")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty database."""
    folder = Path("/tmp") / f"elm-postgres-{os.getpid()}"  # its owner must be able to reach it
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        shutil.chown(folder, pwd.getpwnam("postgres").pw_uid)
    port, data = free_port(), str(folder / "data")
    try:
        _as_postgres("initdb", "-D", data, "-A", "trust", "-U", "elm")
        _start(folder, port)
        yield f"postgresql+psycopg://elm@127.0.0.1:{port}/postgres"
        _as_postgres("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_everything_on_postgresql(server: str, tmp_path: Path, model: Callable[..., dict[str, str]]) -> None:
    """Write, review, compare, vote, export and withdraw, as on SQLite."""
    engine = database.opened(server)
    community = Community(tmp_path, [model("elm-tuned-x"), model("elm-before-y")])
    community.engine.dispose()
    services = community.app.state.services
    community.engine, community.sessions = engine, database.sessions(engine)
    services.open = community.sessions
    writer = community.person().agree()
    writer.give("What is a trust?\0", "A legal arrangement.")
    for _ in range(3):
        community.person("reviewer").agree().post("/review", item="1", verdict="accept")
    writer.post("/compare", prompt="How does a port work?")
    writer.post("/vote", item="1", swapped="no", choice="left")
    writer.post("/vote", 404, item="1", swapped="no", choice="left")
    assert "<td>1</td>" in writer.get("/board")
    with community.sessions() as stored:
        manifest = export(stored, tmp_path / "out")
    assert manifest["items"] == ["item 1", "vote 1"]
    writer.post("/withdraw", item="all")
    assert '"withdrawn"' in writer.get("/mine.json")
    database.upgrade(engine)  # a second start finds the schema new
    engine.dispose()


def test_a_database_that_goes_is_a_page(server: str, tmp_path: Path) -> None:
    gone = database.opened(server)
    community = Community(tmp_path, [])
    community.app.state.services.open = database.sessions(gone)
    person = community.browser()
    assert person.get("/health").status_code == 200
    port = server.rpartition(":")[2].partition("/")[0]
    folder = next(Path("/tmp").glob(f"elm-postgres-{os.getpid()}"))
    assert (folder / f".s.PGSQL.{port}").exists()
    _as_postgres("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    assert person.get("/health").status_code == 503
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    _as_postgres(
        "pg_ctl", "-D", str(folder / "data"), "-o", options, "-l", str(folder / "log"), "-w", "start"
    )
    assert person.get("/health").status_code == 200
