"""The app's database: SQLite in its folder, or PostgreSQL by address; Alembic keeps its schema new."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session as DatabaseSession
from sqlalchemy.orm import sessionmaker

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 10


def opened(address: str) -> Engine:
    """Connect and bring the schema up to date.

    Args:
        address: SQLAlchemy's address, `sqlite:///file` or `postgresql+psycopg://…`.
    """
    engine = create_engine(address, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    upgrade(engine)
    return engine


def upgrade(engine: Engine) -> None:
    """Apply the migrations that the database lacks."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def sessions(engine: Engine) -> sessionmaker[DatabaseSession]:
    """What opens a session; each request has one of its own."""
    return sessionmaker(engine, expire_on_commit=False)


def _set_up_sqlite(connection: object, _record: object) -> None:
    """WAL lets readers go on beside a writer. FULL keeps an acknowledged commit after a power failure."""
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_SECONDS}000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
