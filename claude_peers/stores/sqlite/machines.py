"""Other machines, as rows; columns are named after the record's fields."""

import sqlite3
from dataclasses import asdict, fields

from claude_peers.core.machines import Machine

_NAMES = [each.name for each in fields(Machine)]
_COLUMNS = ", ".join(_NAMES)
_SAVE = (
    f"INSERT OR REPLACE INTO machine ({_COLUMNS}) "
    f"VALUES ({', '.join(':' + name for name in _NAMES)})"
)


def machines(db: sqlite3.Connection) -> list[Machine]:
    """Return all of them, by name."""
    found = db.execute(f"SELECT {_COLUMNS} FROM machine ORDER BY name")
    return [Machine(**dict(zip(_NAMES, row, strict=True))) for row in found]


def save(db: sqlite3.Connection, machine: Machine) -> None:
    """Insert or replace one."""
    db.execute(_SAVE, asdict(machine))
