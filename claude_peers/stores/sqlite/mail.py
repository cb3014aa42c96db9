"""What the store does to mail, as statements inside a transaction that somebody else began.

Every change of state appends a step to the message's story in the same statement, and the
triggers of `schema` keep the counts.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import Event, proved_by, sources, target
from claude_peers.core.errors import DedupeConflictError
from claude_peers.core.limits import Limits, check_mailbox, next_hop
from claude_peers.core.models import UNREAD, Draft, Message, PeerId, Receipt, State, Story
from claude_peers.stores.retention import DEDUPE_WINDOW
from claude_peers.stores.sqlite import endings, rows

_END = 2**63 - 1


def accept(db: sqlite3.Connection, draft: Draft, limits: Limits, now: float) -> Receipt:
    """See `broker.ports.Store.accept`."""
    size = len(draft.text.encode("utf-8", "replace"))
    if draft.dedupe_key and (first := earlier(db, draft, now)):
        box = mailbox(db, draft.to_id)
        return Receipt(message=first, duplicate=True, unread=box.unread, size=box.size)
    if draft.notice_of is not None and (told := _already_told(db, draft.notice_of)):
        return Receipt(message=told, duplicate=True)
    answered = None if draft.reply_to is None else message(db, draft.reply_to)
    hops = 0 if answered is None else next_hop(answered.hops)
    box = mailbox(db, draft.to_id)
    check_mailbox(draft.to_id, limits, unread=box.unread, size=box.size, adding=size)
    thread = None if answered is None else answered.thread or answered.id
    accepted = _insert(db, draft, {"size": size, "hops": hops, "thread": thread})
    if draft.dedupe_key:
        remember(db, (draft.from_id, draft.dedupe_key), _digest(draft), accepted.id, now=now)
    if answered is not None:
        owner = PeerId(draft.from_id)
        proved = proved_by(answered.from_id, draft.to_id)
        move(db, owner, [answered.id], proved, now=now, via=f"message {accepted.id}")
    size += box.size
    return Receipt(message=accepted, unread=box.unread + 1, size=size, replied_to=answered)


def move(
    db: sqlite3.Connection,
    owner: PeerId,
    ids: Iterable[int],
    event: Event,
    *,
    now: float,
    via: str = "",
) -> list[int]:
    """See `broker.ports.Store.move`."""
    listed = json.dumps(list(ids))
    if listed == "[]":
        return []
    ends = target(event) not in UNREAD
    moved = db.execute(
        f"UPDATE mail SET {rows.STEP}, state = :state, unread = :unread, "
        "deliveries = deliveries + :handed, ended_at = coalesce(:ended_at, ended_at), "
        "owed_at = CASE WHEN :state IN ('answered', 'dead') THEN NULL ELSE owed_at END, "
        "reason = CASE WHEN :state = 'dead' THEN :via ELSE reason END "
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
            "now": now,
            "event": event,
            "via": via,
        },
    )
    return sorted(row[0] for row in moved)


def hand_out(
    db: sqlite3.Connection, owner: PeerId, claim: Claim, *, most: int, now: float
) -> list[Message]:
    """See `broker.ports.Store.hand_out`; `most` is `deliveries` there."""
    move(db, owner, claim.seen, Event.SEE, now=now, via=claim.via)
    move(db, owner, claim.returned, Event.RETURN, now=now, via=claim.via)
    endings.give_up(db, owner, most=most, now=now)
    leased = db.execute(
        f"UPDATE mail SET {rows.STEP}, state = 'leased', deliveries = deliveries + 1 WHERE id IN ("
        f"SELECT id FROM mail WHERE to_id = :owner AND {rows.OFFERED} "
        "AND expires_at > :now AND id NOT IN (SELECT value FROM json_each(:exclude)) "
        "ORDER BY id LIMIT :limit) "
        f"RETURNING {rows.MESSAGE}",
        {
            "owner": owner,
            "exclude": json.dumps(claim.exclude),
            "limit": claim.limit or -1,
            "now": now,
            "event": Event.LEASE,
            "via": claim.via,
        },
    )
    return [replace(each, deliveries=each.deliveries - 1) for each in rows.messages(leased)]


def end_leases(db: sqlite3.Connection, now: float) -> None:
    """Queue again what earlier epochs had handed out."""
    db.execute(
        f"UPDATE mail SET {rows.STEP}, state = 'queued' WHERE unread = 1 AND state = 'leased'",
        {"now": now, "event": Event.RETURN, "via": "another broker leads"},
    )


def admit(db: sqlite3.Connection, owner: PeerId, sender: str, now: float) -> list[Message]:
    """See `broker.ports.Store.admit`."""
    admitted = db.execute(
        f"UPDATE mail SET {rows.STEP}, state = 'queued' WHERE unread = 1 AND to_id = :owner "
        f"AND from_id = :sender AND state = 'held' RETURNING {rows.MESSAGE}",
        {"owner": owner, "sender": sender, "now": now, "event": Event.ADMIT, "via": "unmute"},
    )
    return rows.messages(admitted)


def readdress(db: sqlite3.Connection, old: PeerId, new: PeerId, name: str, now: float) -> int:
    """See `broker.ports.Store.readdress`."""
    return db.execute(
        f"UPDATE mail SET {rows.STEP}, to_id = :new, inherited = 1, state = 'queued' "
        "WHERE unread = 1 AND to_id = :old AND to_name = :name",
        {"old": old, "new": new, "name": name, "now": now, "event": "readdress", "via": new},
    ).rowcount


def mailbox(db: sqlite3.Connection, owner: PeerId) -> Mailbox:
    """See `broker.ports.Store.mailbox`."""
    row = db.execute("SELECT unread, size FROM mailbox WHERE peer_id = ?", [owner]).fetchone()
    return Mailbox(unread=row[0], size=row[1]) if row else Mailbox()


def message(db: sqlite3.Connection, message_id: int) -> Message | None:
    """See `broker.ports.Store.message`."""
    row = db.execute(f"SELECT {rows.MESSAGE} FROM mail WHERE id = ?", [message_id]).fetchone()
    return rows.to_message(row) if row else None


def stories(db: sqlite3.Connection, ids: list[int]) -> list[Story]:
    """See `broker.ports.Store.stories`."""
    found = db.execute(
        f"SELECT steps, {rows.MESSAGE} FROM mail "
        "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        [json.dumps(ids)],
    )
    return [Story(rows.to_message(row[1:]), rows.to_steps(row[0])) for row in found]


def dead_letters(db: sqlite3.Connection, owner: PeerId | None, limit: int) -> list[Message]:
    """See `broker.ports.Store.dead_letters`."""
    # Without a hint, all mail is read for the newest of all: it comes in the right order.
    which = "" if owner is None else "AND to_id = :owner "
    found = db.execute(
        f"SELECT {rows.MESSAGE} FROM mail INDEXED BY mail_dead WHERE state = 'dead' {which}"
        "ORDER BY id DESC LIMIT :limit",
        {"owner": owner, "limit": limit},
    )
    return [rows.to_message(row) for row in found]


def owed(db: sqlite3.Connection, now: float | None, by: PeerId | None, limit: int) -> list[Message]:
    """See `broker.ports.Store.owed`."""
    which = "owed_at <= :now" if by is None else "owed_at IS NOT NULL AND to_id = :by"
    return rows.messages(
        db.execute(
            f"SELECT {rows.MESSAGE} FROM mail WHERE {which} LIMIT :limit",
            {"now": now, "by": by, "limit": limit},
        )
    )


def page(db: sqlite3.Connection, owner: PeerId, after: int, limit: int) -> list[Message]:
    """See `broker.ports.Store.unread`."""
    return rows.messages(
        db.execute(
            f"SELECT {rows.MESSAGE} FROM mail WHERE to_id = :owner AND {rows.OFFERED} "
            "AND id > :after ORDER BY id LIMIT :limit",
            {"owner": owner, "after": after, "limit": limit or -1},
        )
    )


def history(
    db: sqlite3.Connection, after: int, before: int, *, limit: int, newest: bool
) -> list[Message]:
    """See `broker.ports.Store.history`."""
    return rows.messages(
        db.execute(
            f"SELECT {rows.MESSAGE} FROM mail WHERE id > :after AND id < :before "
            f"ORDER BY id {'DESC' if newest else 'ASC'} LIMIT :limit",
            {"after": after, "before": before or _END, "limit": limit},
        )
    )


def _insert(db: sqlite3.Connection, draft: Draft, more: dict[str, Any]) -> Message:
    values: dict[str, Any] = more | {
        "uid": secrets.token_hex(12),
        "from_id": draft.from_id,
        "to_id": draft.to_id,
        "text": draft.text,
        "sent_at": draft.sent_at,
        "state": State.HELD if draft.held else State.QUEUED,
        "unread": 1,
        "verified": draft.verified,
        "reply_to": draft.reply_to,
        "expires_at": draft.expires_at,
        "intent": draft.intent,
        "to_name": draft.to_name,
        "owed_at": draft.owed_at,
        "topic": draft.topic,
        "retained": draft.retained,
        "qos": draft.qos,
    }
    named = ", ".join(f":{name}" for name in values)
    made = f"INSERT INTO mail ({', '.join(values)}) VALUES ({named}) RETURNING {rows.MESSAGE}"
    return rows.to_message(db.execute(made, values).fetchone())


def _already_told(db: sqlite3.Connection, request: int) -> Message | None:
    """Note that a request's sender is told now; return the request if it was told before."""
    told = db.execute(
        "UPDATE mail SET owed_at = NULL WHERE id = ? AND owed_at IS NOT NULL", [request]
    )
    return None if told.rowcount else message(db, request)


def earlier(db: sqlite3.Connection, draft: Draft, now: float) -> Message | None:
    """See `broker.ports.Store.accepted`."""
    number = remembered(db, (draft.from_id, draft.dedupe_key or ""), _digest(draft), now=now)
    return None if number is None else message(db, number)


def remembered(
    db: sqlite3.Connection, whose: tuple[str, str], digested: str, *, now: float
) -> int | None:
    """Return for which message a sender used a key, or None if it did not.

    Raises:
        DedupeConflictError: it was for something else.
    """
    row = db.execute(
        "SELECT digest, mail_id FROM dedupe WHERE sender = ? AND key = ? AND at > ?",
        [*whose, now - DEDUPE_WINDOW],
    ).fetchone()
    if row is None:
        return None
    if row[0] != digested:
        raise DedupeConflictError(whose[1])
    return int(row[1])


def remember(
    db: sqlite3.Connection, whose: tuple[str, str], digested: str, mail_id: int, *, now: float
) -> None:
    """Note for which message a sender has used a key; 0 is none, but a last value."""
    db.execute(
        "INSERT OR REPLACE INTO dedupe VALUES (?, ?, ?, ?, ?)", [*whose, digested, mail_id, now]
    )


def digest(*said: object) -> str:
    """Return what tells whether the same is said."""
    body = "\x1f".join(map(str, said))
    return hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()


def _digest(draft: Draft) -> str:
    return digest(draft.to_id, draft.reply_to, draft.text)
