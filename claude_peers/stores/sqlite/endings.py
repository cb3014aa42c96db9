"""How unread messages end that nobody reads, and how ended ones are forgotten, as statements."""

import json
import sqlite3

from claude_peers.core.delivery import EXPIRED, Event
from claude_peers.core.models import PeerId
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ
from claude_peers.stores.sqlite import rows


def give_up(
    db: sqlite3.Connection, owner: PeerId, *, most: int, now: float, ids: list[int] | None = None
) -> None:
    """End what was handed out `most` times, of these messages or of all."""
    which = "" if ids is None else "AND id IN (SELECT value FROM json_each(:ids)) "
    db.execute(
        "UPDATE mail SET "
        "steps = steps || json_array(:now, :event, given_up(deliveries)) || char(10), "
        "state = 'dead', unread = 0, ended_at = :now, reason = given_up(deliveries), "
        f"owed_at = NULL WHERE to_id = :owner {which}AND {rows.OFFERED} AND deliveries >= :most",
        {
            "owner": owner,
            "ids": json.dumps(ids),
            "most": most,
            "now": now,
            "event": Event.GIVE_UP,
        },
    )


def tidy(db: sqlite3.Connection, now: float, most: int) -> int:
    """See `broker.ports.Store.tidy`."""
    died = db.execute(
        f"UPDATE mail SET {rows.STEP}, state = 'dead', unread = 0, ended_at = :now, reason = :via, "
        "owed_at = NULL "
        "WHERE id IN (SELECT id FROM mail WHERE unread = 1 AND expires_at <= :now LIMIT :most)",
        {"now": now, "most": most, "event": Event.EXPIRE, "via": EXPIRED},
    ).rowcount
    purged = db.execute(
        "DELETE FROM mail WHERE id IN (SELECT id FROM mail WHERE unread = 0 AND ended_at <= :read "
        "AND owed_at IS NULL AND (state <> 'dead' OR ended_at <= :dead) "
        "ORDER BY ended_at LIMIT :most)",
        {"read": now - KEEP_READ, "dead": now - KEEP_DEAD, "most": most - died},
    ).rowcount
    forgotten = db.execute(
        "DELETE FROM dedupe WHERE (sender, key) IN "
        "(SELECT sender, key FROM dedupe WHERE at <= ? ORDER BY at LIMIT ?)",
        [now - DEDUPE_WINDOW, most - died - purged],
    ).rowcount
    return died + purged + forgotten
