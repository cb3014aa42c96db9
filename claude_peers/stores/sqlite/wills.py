"""Last wills, inside a transaction somebody else began."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields

from claude_peers.core.errors import MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, PeerId, Receipt, Retained
from claude_peers.core.wills import Will
from claude_peers.stores.sqlite import topics

_NAMES = [each.name for each in fields(Will)]
_COLUMNS = ", ".join(_NAMES)
_SAVE = (
    f"INSERT OR REPLACE INTO will ({_COLUMNS}) VALUES ({', '.join(':' + name for name in _NAMES)})"
)


def wills(db: sqlite3.Connection) -> list[Will]:
    """See `broker.ports.Store.wills`."""
    found = (
        dict(zip(_NAMES, row, strict=True))
        for row in db.execute(f"SELECT {_COLUMNS} FROM will ORDER BY peer_id")
    )
    return [
        Will(**row | {"retain": bool(row["retain"]), "armed": bool(row["armed"])}) for row in found
    ]


def save(db: sqlite3.Connection, will: Will) -> None:
    """See `broker.ports.Store.save_will`."""
    db.execute(_SAVE, asdict(will))


def drop(db: sqlite3.Connection, peer_id: PeerId) -> None:
    """See `broker.ports.Store.drop_will`."""
    db.execute("DELETE FROM will WHERE peer_id = ?", [peer_id])


def publish(
    db: sqlite3.Connection,
    will: Will,
    drafts: Sequence[Draft],
    limits: Limits,
    *,
    now: float,
    keep: Retained | None,
) -> list[Receipt | MailboxFullError]:
    """See `broker.ports.Store.publish_will`."""
    disarmed = db.execute(
        "UPDATE will SET armed = 0 WHERE peer_id = ? AND armed = 1", [will.peer_id]
    )
    if not disarmed.rowcount:
        return []
    return topics.publish(db, drafts, limits, now=now, keep=keep)
