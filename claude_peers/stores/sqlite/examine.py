"""What condition a database file is in, found out without changing it.

The file is opened as a broker would open it, its lock is taken and given back, and its pages are
read. A missing file is in order: the next broker makes it.
"""

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from urllib.request import pathname2url

from claude_peers.core.errors import StoreError
from claude_peers.stores.sqlite.commits import translate
from claude_peers.stores.sqlite.schema import recognise

WAIT = 1.0
"""Seconds to wait for another program's lock: brokers hold theirs for milliseconds."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class Condition:
    """What was found.

    Attributes:
        fact: in one sentence.
        remedy: what to do; empty if all is well.
        damaged: whether it is a file of ours whose content cannot be relied on.
    """

    fact: str
    remedy: str = ""
    damaged: bool = False


def examine(path: str) -> Condition:
    """Return the condition of the database at `path`."""
    if not os.path.lexists(path):
        return Condition(f"{path} does not exist yet; the next broker makes it")
    if not os.path.isfile(path):
        return Condition(f"{path} is no file", "Choose another with CLAUDE_PEERS_DB.")
    try:
        with contextlib.closing(_open(path)) as db:
            return _condition(db, path)
    except (sqlite3.Error, StoreError) as error:
        told = translate(error)
        assert isinstance(told, StoreError)  # noqa: S101 - what an error of SQLite becomes
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED
        return Condition(f"{path} cannot be used: {told.fact}", told.remedy or "", damaged)


def _open(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{pathname2url(os.path.abspath(path))}?mode=rw",
        uri=True,
        timeout=WAIT,
        isolation_level=None,
    )


def _condition(db: sqlite3.Connection, path: str) -> Condition:
    tables = recognise(db)
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        return Condition(f"{path} is damaged: {found}", "Run `claude-peers salvage`.", damaged=True)
    db.execute("BEGIN IMMEDIATE")  # can it be written, and does nobody hold it
    db.execute("ROLLBACK")
    if "leadership" not in tables:
        told = "is an upstream database, to be adopted" if tables else "is empty"
        return Condition(f"{path} {told}")
    (unread,) = db.execute("SELECT coalesce(sum(unread), 0) FROM mailbox").fetchone()
    return Condition(f"{path} is whole, with {unread} unread message(s)")
