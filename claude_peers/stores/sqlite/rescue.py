"""A database file that was deleted, moved or replaced while a broker had it open.

The open file still holds everything, and nobody else can reach it: it is written out under its
name again, or beside what has taken that name. Nothing that is there is overwritten.
"""

import contextlib
import os
import sqlite3
import time

from claude_peers.core.errors import StoreError


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at `path` from every other one; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def save(db: sqlite3.Connection, path: str) -> str:
    """Write all of an open database to its old path, or beside it; say what was done.

    Raises:
        StoreError: its folder is gone, too, or cannot be written.
    """
    db.execute("ROLLBACK")  # a copy cannot be made inside a transaction
    saved = f"{path}.saved-{time.time_ns()}"
    try:
        os.close(os.open(saved, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        db.execute("VACUUM INTO ?", [saved])
        with open(saved, "rb+") as file:
            os.fsync(file.fileno())
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{path} was moved or deleted while in use, and cannot be saved: {error}",
            "Make its folder again, writable for you, while this broker runs: it tries once more.",
            retry_after=1.0,
        ) from error
    if os.path.lexists(path):
        return f"{path} was replaced while in use; what it held is in {saved}"
    for suffix in ("-wal", "-shm"):  # of the file that is gone: they must not be read with this one
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    os.link(saved, path)  # unlike a rename, it replaces nothing
    os.unlink(saved)
    return f"{path} was deleted while in use; it was made again, whole"
