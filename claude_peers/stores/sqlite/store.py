"""The Store port on one SQLite file."""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import Event, sources, target
from claude_peers.core.errors import DedupeConflictError
from claude_peers.core.limits import Limits, check_mailbox
from claude_peers.core.models import (
    UNREAD,
    Draft,
    Ledger,
    Message,
    Peer,
    PeerId,
    Process,
    Receipt,
    State,
)
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ
from claude_peers.stores.sqlite import rows
from claude_peers.stores.sqlite.adopt import Adoption
from claude_peers.stores.sqlite.commits import Commits

_OFFERED = "unread = 1 AND state IN ('queued', 'pushed')"


class SqliteStore:
    """Peers and mail in one file; an async context manager that opens and closes it.

    Args:
        path: the database file.
        adoption: which upstream databases to take over from, if any.
    """

    name = "sqlite"

    def __init__(self, path: str, adoption: Adoption | None = None) -> None:
        self.commits = Commits(path, prepare=adoption or (lambda _db: None))

    async def __aenter__(self) -> Self:
        """Open the file."""
        await self.commits.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the file, after what waits has been committed."""
        await self.commits.__aexit__(kind, error, at)

    async def take_office(self, leader: Process) -> int:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> int:
            (epoch,) = db.execute(
                "UPDATE leadership SET epoch = epoch + 1, pid = :pid, started = :started "
                "RETURNING epoch",
                {"pid": leader.pid, "started": leader.started},
            ).fetchone()
            db.execute("UPDATE mail SET state = 'queued' WHERE unread = 1 AND state = 'leased'")
            return int(epoch)

        # Only now: an epoch whose commit failed was never ours.
        self.commits.epoch = await self.commits.submit(work)
        return self.commits.epoch

    async def peers(self) -> list[Peer]:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> list[Peer]:
            found = db.execute(f"SELECT {rows.PEER} FROM peer ORDER BY seq")
            return [rows.to_peer(row) for row in found]

        return await self.commits.submit(work, writes=False)

    async def save_peer(self, peer: Peer) -> None:
        """See `broker.ports.Store`."""
        row = rows.peer_row(peer)
        await self.commits.submit(lambda db: _done(db.execute(rows.SAVE_PEER, row)))

    async def forget_peers(self, ids: Iterable[PeerId]) -> None:
        """See `broker.ports.Store`."""
        listed = json.dumps(list(ids))
        await self.commits.submit(
            lambda db: _done(
                db.execute(
                    "DELETE FROM peer WHERE id IN (SELECT value FROM json_each(?))", [listed]
                )
            )
        )

    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """See `broker.ports.Store`."""
        size = len(draft.text.encode("utf-8", "replace"))
        digest = _digest(draft)

        def work(db: sqlite3.Connection) -> Receipt:
            if draft.dedupe_key and (first := _earlier(db, draft, digest, now)):
                return Receipt(message=first, duplicate=True)
            box = _mailbox(db, draft.to_id)
            check_mailbox(draft.to_id, limits, unread=box.unread, size=box.size, adding=size)
            message = _insert(db, draft, size)
            if draft.dedupe_key:
                _remember(db, draft, digest, message.id, now)
            if draft.reply_to is not None:
                _move(db, PeerId(draft.from_id), [draft.reply_to], Event.ANSWER, now=now)
            return Receipt(message=message)

        return await self.commits.submit(work)

    async def unread(self, owner: PeerId, *, after: int = 0, limit: int = 0) -> list[Message]:
        """See `broker.ports.Store`."""
        values = {"owner": owner, "after": after, "limit": limit or -1}
        return await self.commits.submit(
            lambda db: rows.messages(
                db.execute(
                    f"SELECT {rows.MESSAGE} FROM mail WHERE to_id = :owner AND {_OFFERED} "
                    "AND id > :after ORDER BY id LIMIT :limit",
                    values,
                )
            ),
            writes=False,
        )

    async def move(
        self, owner: PeerId, ids: Iterable[int], event: Event, *, now: float
    ) -> list[int]:
        """See `broker.ports.Store`."""
        listed = list(ids)
        return await self.commits.submit(lambda db: _move(db, owner, listed, event, now=now))

    async def hand_out(self, owner: PeerId, claim: Claim, *, now: float) -> list[Message]:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> list[Message]:
            _move(db, owner, claim.seen, Event.SEE, now=now)
            _move(db, owner, claim.returned, Event.RETURN, now=now)
            return _lease(db, owner, claim)

        # Most polls find nothing and settle nothing: a commit without a change writes no page.
        return await self.commits.submit(work)

    async def tidy(self, *, now: float, most: int) -> int:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: _tidy(db, now, most))

    async def mailbox(self, owner: PeerId) -> Mailbox:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: _mailbox(db, owner), writes=False)

    async def message(self, message_id: int) -> Message | None:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: _message(db, message_id), writes=False)

    async def ledger(self) -> Ledger:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> Ledger:
            tally = dict(db.execute("SELECT name, n FROM tally").fetchall())
            accepted, purged = tally.pop("accepted", 0), tally.pop("purged", 0)
            states = {State(name): n for name, n in tally.items() if n}
            return Ledger(accepted=accepted, purged=purged, states=states)

        return await self.commits.submit(work, writes=False)


def _insert(db: sqlite3.Connection, draft: Draft, size: int) -> Message:
    values: dict[str, Any] = {
        "uid": secrets.token_hex(12),
        "from_id": draft.from_id,
        "to_id": draft.to_id,
        "text": draft.text,
        "size": size,
        "sent_at": draft.sent_at,
        "verified": draft.verified,
        "reply_to": draft.reply_to,
        "expires_at": draft.expires_at,
    }
    row = db.execute(
        "INSERT INTO mail (uid, from_id, to_id, text, size, sent_at, state, unread, verified, "
        "reply_to, expires_at) VALUES (:uid, :from_id, :to_id, :text, :size, :sent_at, "
        f"'queued', 1, :verified, :reply_to, :expires_at) RETURNING {rows.MESSAGE}",
        values,
    ).fetchone()
    return rows.to_message(row)


def _move(
    db: sqlite3.Connection, owner: PeerId, ids: Iterable[int], event: Event, *, now: float
) -> list[int]:
    listed = json.dumps(list(ids))
    if listed == "[]":
        return []
    ends = target(event) not in UNREAD
    moved = db.execute(
        "UPDATE mail SET state = :state, unread = :unread, deliveries = deliveries + :handed, "
        "ended_at = coalesce(:ended_at, ended_at) "
        "WHERE id IN (SELECT value FROM json_each(:ids)) AND to_id = :owner "
        "AND state IN (SELECT value FROM json_each(:sources)) RETURNING id",
        {
            "state": target(event),
            "unread": not ends,
            "handed": event in (Event.LEASE, Event.PUSH),
            "ended_at": now if ends else None,
            "ids": listed,
            "owner": owner,
            "sources": json.dumps(sources(event)),
        },
    )
    return sorted(row[0] for row in moved)


def _lease(db: sqlite3.Connection, owner: PeerId, claim: Claim) -> list[Message]:
    leased = db.execute(
        "UPDATE mail SET state = 'leased', deliveries = deliveries + 1 WHERE id IN ("
        f"SELECT id FROM mail WHERE to_id = :owner AND {_OFFERED} "
        "AND id NOT IN (SELECT value FROM json_each(:exclude)) ORDER BY id LIMIT :limit) "
        f"RETURNING {rows.MESSAGE}",
        {"owner": owner, "exclude": json.dumps(claim.exclude), "limit": claim.limit or -1},
    )
    return [
        replace(message, deliveries=message.deliveries - 1) for message in rows.messages(leased)
    ]


def _mailbox(db: sqlite3.Connection, owner: PeerId) -> Mailbox:
    row = db.execute("SELECT unread, size FROM mailbox WHERE peer_id = ?", [owner]).fetchone()
    return Mailbox(unread=row[0], size=row[1]) if row else Mailbox()


def _message(db: sqlite3.Connection, message_id: int) -> Message | None:
    found = db.execute(f"SELECT {rows.MESSAGE} FROM mail WHERE id = ?", [message_id])
    row = found.fetchone()
    return rows.to_message(row) if row else None


def _earlier(db: sqlite3.Connection, draft: Draft, digest: str, now: float) -> Message | None:
    row = db.execute(
        "SELECT digest, mail_id FROM dedupe WHERE sender = ? AND key = ? AND at > ?",
        [draft.from_id, draft.dedupe_key, now - DEDUPE_WINDOW],
    ).fetchone()
    if row is None:
        return None
    if row[0] != digest:
        raise DedupeConflictError(draft.dedupe_key or "")
    return _message(db, row[1])


def _remember(db: sqlite3.Connection, draft: Draft, digest: str, mail_id: int, now: float) -> None:
    db.execute(
        "INSERT OR REPLACE INTO dedupe VALUES (?, ?, ?, ?, ?)",
        [draft.from_id, draft.dedupe_key, digest, mail_id, now],
    )
    # Two old keys go for each new one: the table stays small without a sweep.
    db.execute(
        "DELETE FROM dedupe WHERE (sender, key) IN "
        "(SELECT sender, key FROM dedupe WHERE at <= ? ORDER BY at LIMIT 2)",
        [now - DEDUPE_WINDOW],
    )


def _tidy(db: sqlite3.Connection, now: float, most: int) -> int:
    died = db.execute(
        "UPDATE mail SET state = 'dead', unread = 0, ended_at = :now, reason = 'expired' "
        "WHERE id IN (SELECT id FROM mail WHERE unread = 1 AND expires_at <= :now LIMIT :most)",
        {"now": now, "most": most},
    ).rowcount
    purged = db.execute(
        "DELETE FROM mail WHERE id IN (SELECT id FROM mail WHERE unread = 0 AND ended_at <= :read "
        "AND (state <> 'dead' OR ended_at <= :dead) ORDER BY ended_at LIMIT :most)",
        {"read": now - KEEP_READ, "dead": now - KEEP_DEAD, "most": most - died},
    ).rowcount
    return died + purged


def _digest(draft: Draft) -> str:
    body = f"{draft.to_id}\x1f{draft.reply_to}\x1f{draft.text}"
    return hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()


def _done(_cursor: sqlite3.Cursor) -> None:
    return None
