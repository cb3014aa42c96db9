"""Subscriptions, last values and what is published, inside a transaction somebody else began."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields

from claude_peers.core.errors import MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, PeerId, Receipt, Retained
from claude_peers.stores.sqlite import mail

_NAMES = [each.name for each in fields(Retained)]
_COLUMNS = ", ".join(_NAMES)
_KEEP = (
    f"INSERT OR REPLACE INTO retained ({_COLUMNS}) "
    f"VALUES ({', '.join(':' + name for name in _NAMES)})"
)


def subscriptions(db: sqlite3.Connection) -> list[tuple[PeerId, str]]:
    """See `broker.ports.Store.subscriptions`."""
    return db.execute("SELECT peer_id, pattern FROM subscription ORDER BY rowid").fetchall()


def retained(db: sqlite3.Connection) -> list[Retained]:
    """See `broker.ports.Store.retained`."""
    found = db.execute(f"SELECT {_COLUMNS} FROM retained ORDER BY topic")
    values = (dict(zip(_NAMES, row, strict=True)) for row in found)
    return [Retained(**value | {"verified": bool(value["verified"])}) for value in values]


def subscribe(
    db: sqlite3.Connection,
    subscription: tuple[PeerId, str],
    drafts: Sequence[Draft],
    limits: Limits,
    *,
    now: float,
) -> list[Receipt | MailboxFullError]:
    """See `broker.ports.Store.subscribe`."""
    db.execute("INSERT OR IGNORE INTO subscription VALUES (?, ?)", subscription)
    return publish(db, drafts, limits, now=now)


def unsubscribe(db: sqlite3.Connection, subscription: tuple[PeerId, str]) -> None:
    """See `broker.ports.Store.unsubscribe`."""
    db.execute("DELETE FROM subscription WHERE peer_id = ? AND pattern = ?", subscription)


def publish(
    db: sqlite3.Connection,
    drafts: Sequence[Draft],
    limits: Limits,
    *,
    now: float,
    keep: Retained | None = None,
    key: str | None = None,
) -> list[Receipt | MailboxFullError]:
    """See `broker.ports.Store.publish`."""
    results = [_accept(db, draft, limits, now) for draft in drafts]
    if keep is not None and not (key and kept(db, keep, key, now=now)):
        _put(db, keep)
        if key:
            mail.remember(db, (keep.from_id, key), _digest(keep), 0, now=now)
    return results


def kept(db: sqlite3.Connection, value: Retained, key: str, *, now: float) -> bool:
    """See `broker.ports.Store.kept`."""
    return mail.remembered(db, (value.from_id, key), _digest(value), now=now) is not None


def _put(db: sqlite3.Connection, value: Retained) -> None:
    if value.text:
        db.execute(_KEEP, asdict(value))
    else:
        db.execute("DELETE FROM retained WHERE topic = ?", [value.topic])


def _digest(value: Retained) -> str:
    return mail.digest(value.topic, value.text)


def _accept(
    db: sqlite3.Connection, draft: Draft, limits: Limits, now: float
) -> Receipt | MailboxFullError:
    try:
        return mail.accept(db, draft, limits, now)
    except MailboxFullError as full:  # refused before anything was written
        return full
