"""What can still be read of a damaged database, put into a new one.

The damaged file is never written to: a copy of it is read, row by row, around the pages that
cannot be; it is moved aside as it was. Counts are made anew from what was found, so the new
ledger balances by itself and says nothing of what was lost.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from claude_peers.core.models import UNREAD
from claude_peers.stores.sqlite import rows
from claude_peers.stores.sqlite.schema import migrate, transaction

STRIDE = 64
"""Rows that are passed over, at most, to get past a page that cannot be read."""
LARGEST = 2**30
"""Bytes that a damaged header is believed; they take no room, being holes."""
SKIPPED_IDS = 1000
"""Message ids left unused where the last one is not known: an id names one message for ever."""
_COUNTED = ("mailbox", "tally")
"""Tables that are made anew from the messages."""
_SIDECARS = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What came of it.

    Attributes:
        aside: where the damaged file is now; empty if it was only looked at.
        peers, messages, unread: how many could be read.
    """

    aside: str
    peers: int
    messages: int
    unread: int


def salvage(path: str, *, now: float, keep: bool) -> Salvaged:
    """Read what can be read at `path`; with `keep`, put it in place of the damaged file.

    The caller holds the leader's lock. `now` is in seconds since the epoch.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".salvage-") as scratch:
        copy, new = os.path.join(scratch, "damaged"), os.path.join(scratch, "new")
        for suffix in _SIDECARS[:2]:
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, copy + suffix)
        _pad(copy)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as old,
            contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db,
        ):
            found = _fill(db, old, now)
        return _put_in_place(path, new, found, now) if keep else found


def _pad(copy: str) -> None:
    """Give a file that was cut off its length back: SQLite reads nothing of one too short."""
    with open(copy, "rb+") as file:
        head = file.read(100)
        if head.startswith(b"SQLite format 3\0"):
            pages, size = int.from_bytes(head[28:32], "big"), int.from_bytes(head[16:18], "big")
            file.truncate(max(os.path.getsize(copy), min(pages * size, LARGEST)))


def _put_in_place(path: str, new: str, found: Salvaged, now: float) -> Salvaged:
    aside = f"{path}.damaged-{now:.0f}"
    for suffix in _SIDECARS:
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    os.link(new, path)  # unlike a rename, it replaces nothing
    return Salvaged(aside, found.peers, found.messages, found.unread)


def _fill(db: sqlite3.Connection, old: sqlite3.Connection, now: float) -> Salvaged:
    migrate(db)
    with transaction(db):
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        kept = triggers.fetchall()
        for name, _ in kept:
            db.execute(f"DROP TRIGGER {name}")
        tables = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        for name, sql in tables:
            if name not in _COUNTED and not name.startswith("sqlite_"):
                _copy(db, old, name, by_rowid="WITHOUT ROWID" not in sql)
        _drop_unreadable(db)
        _number_on(db, old)
        _count(db)
        db.execute(
            "UPDATE leadership SET epoch = max(epoch, ?) WHERE epoch = 0", [int(now)]
        )  # epochs only grow, and what a follower has seen of them cannot be asked
        for _, sql in kept:
            db.execute(sql)
    (peers,) = db.execute("SELECT count(*) FROM peer").fetchone()
    messages, unread = db.execute("SELECT count(*), coalesce(sum(unread), 0) FROM mail").fetchone()
    return Salvaged("", peers, messages, unread)


def _copy(db: sqlite3.Connection, old: sqlite3.Connection, table: str, *, by_rowid: bool) -> None:
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    try:
        known = {row[1] for row in old.execute(f"PRAGMA table_info({table})")}
    except sqlite3.DatabaseError:  # not even its first page
        return
    shared = ", ".join(name for name in names if name in known)
    if not shared:
        return
    marks = ", ".join("?" * (shared.count(",") + 1))
    found = _rows_around(old, table, shared) if by_rowid else _rows_until(old, table, shared)
    for row in found:
        with contextlib.suppress(sqlite3.Error):  # a value that its column does not take
            db.execute(f"INSERT OR REPLACE INTO {table} ({shared}) VALUES ({marks})", row)


def _rows_until(old: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table without row ids, until one cannot be read."""
    with contextlib.suppress(sqlite3.DatabaseError):
        yield from old.execute(f"SELECT {columns} FROM {table}")


def _rows_around(old: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table upwards, passing over those that cannot be read, then downwards.

    Downwards, too, as what is above a page that cannot be read may only be found from above.
    """
    for order, beyond, step in (("ASC", ">=", 1), ("DESC", "<=", -1)):
        at, stride, misses = (0, 1, 0) if step > 0 else (2**62, 1, 0)
        while misses < STRIDE:
            select = (
                f"SELECT rowid, {columns} FROM {table} "
                f"WHERE rowid {beyond} ? ORDER BY rowid {order}"
            )
            try:
                for rowid, *row in old.execute(select, [at]):
                    yield tuple(row)
                    at, stride, misses = rowid + step, 1, 0
                break
            except sqlite3.DatabaseError:
                at, misses = at + step * stride, misses + 1
                stride = min(2 * stride, STRIDE)


def _drop_unreadable(db: sqlite3.Connection) -> None:
    """Delete rows that no version of ours has written."""
    for table, key, columns, read in (
        ("mail", "id", rows.MESSAGE, rows.to_message),
        ("peer", "seq", rows.PEER, rows.to_peer),
    ):
        for number, *row in db.execute(f"SELECT {key}, {columns} FROM {table}").fetchall():
            try:
                read(tuple(row))
            except (ValueError, TypeError):
                db.execute(f"DELETE FROM {table} WHERE {key} = ?", [number])
    for number, steps in db.execute("SELECT id, steps FROM mail").fetchall():
        try:
            rows.to_steps(steps)
        except (ValueError, TypeError):
            db.execute("UPDATE mail SET steps = '' WHERE id = ?", [number])


def _number_on(db: sqlite3.Connection, old: sqlite3.Connection) -> None:
    """Let the next message's id be above all that were given."""
    last = None
    with contextlib.suppress(sqlite3.DatabaseError):
        last = old.execute("SELECT seq FROM sqlite_sequence WHERE name = 'mail'").fetchone()
    (found,) = db.execute("SELECT coalesce(max(id), 0) FROM mail").fetchone()
    known = last[0] if last and isinstance(last[0], int) else found + SKIPPED_IDS
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'mail'")
    db.execute("INSERT INTO sqlite_sequence VALUES ('mail', ?)", [max(known, found)])


def _count(db: sqlite3.Connection) -> None:
    states = ", ".join(f"'{state}'" for state in UNREAD)
    db.execute(f"UPDATE mail SET unread = state IN ({states})")
    db.execute("INSERT INTO tally SELECT state, count(*) FROM mail GROUP BY state")
    db.execute("INSERT INTO tally SELECT 'accepted', count(*) FROM mail")
    db.execute(
        "INSERT INTO mailbox SELECT to_id, count(*), sum(size) FROM mail WHERE unread = 1 "
        "GROUP BY to_id"
    )
