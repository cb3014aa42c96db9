"""What can happen to a database file, each as a function that does it to a path."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

Accident = Callable[[Path], None]


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database at all\n" * 400)


def truncated(path: Path) -> None:
    ours(path)
    os.truncate(path, path.stat().st_size // 2)


def scribbled_over(path: Path) -> None:
    ours(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 3 * 4096)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mail (recipe TEXT)")
        db.execute("INSERT INTO mail VALUES ('of somebody else')")
        db.commit()


def newer(path: Path) -> None:
    ours(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def ours(path: Path) -> None:
    """Make a database as a broker leaves it."""
    from claude_peers.stores.sqlite.schema import migrate

    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        migrate(db)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the database as another program might."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield


FOR_GOOD: dict[Accident, str] = {
    garbage: "not a database",
    truncated: "malformed",
    scribbled_over: "malformed",
    foreign: "another program's",
    newer: "schema 99",
}
"""Accidents that waiting does not mend, and what a broker says of each."""
