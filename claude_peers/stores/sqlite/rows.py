"""Records to rows and back; SQL names its columns after the records' fields."""

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from claude_peers.core.models import (
    Message,
    Peer,
    PeerId,
    Presence,
    Process,
    State,
    Step,
    Trust,
)
from claude_peers.core.profile import Profile

PEER = (
    "id, name, pid, process_pid, process_started, boot, host, cwd, git_root, repo, tty, summary, "
    "client, route, trust, presence, token_hash, keys, former, muted, machine, "
    "shared, profile, registered_at, last_seen"
)
_NAMES = PEER.split(", ")
SAVE_PEER = (
    f"INSERT INTO peer ({PEER}) VALUES ({', '.join(':' + name for name in _NAMES)}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _NAMES[1:])}"
)
MESSAGE = (
    "id, uid, from_id, to_id, text, sent_at, state, verified, reply_to, deliveries, intent, "
    "thread, hops, to_name, inherited, expires_at, ended_at, reason, topic, retained, qos"
)
_MESSAGE = MESSAGE.split(", ")
OFFERED = "unread = 1 AND state IN ('queued', 'pushed')"
"""The condition for mail that may be handed out."""
STEP = "steps = steps || json_array(:now, :event, :via) || char(10)"
"""The assignment that appends a step to a message's story."""


def peer_row(peer: Peer) -> dict[str, Any]:
    """Return the named parameters of `SAVE_PEER`."""
    row = {name: getattr(peer, name) for name in _NAMES if not name.startswith("process_")}
    row["process_pid"] = peer.process.pid if peer.process else None
    row["process_started"] = peer.process.started if peer.process else None
    row |= {name: json.dumps(row[name]) for name in ("keys", "former", "muted")}
    row["profile"] = json.dumps(asdict(peer.profile))
    row["trust"], row["presence"] = peer.trust.value, peer.presence.value
    return row


def to_peer(row: tuple[Any, ...]) -> Peer:
    """Return the peer of a row of `PEER`."""
    values = dict(zip(_NAMES, row, strict=True))
    pid, started = values.pop("process_pid"), values.pop("process_started")
    values["process"] = None if pid is None else Process(pid=pid, started=started)
    for name in ("keys", "muted"):
        values[name] = tuple(json.loads(values[name]))
    values["former"] = tuple(tuple(each) for each in json.loads(values["former"]))
    values["trust"], values["presence"] = Trust(values["trust"]), Presence(values["presence"])
    values["shared"] = bool(values["shared"])
    told = json.loads(values["profile"])
    told["capabilities"] = tuple(told.get("capabilities", ()))
    values["profile"] = Profile(**told)
    return Peer(**values)


def to_message(row: tuple[Any, ...]) -> Message:
    """Return the message of a row of `MESSAGE`."""
    values = dict(zip(_MESSAGE, row, strict=True))
    values["state"], values["to_id"] = State(values["state"]), PeerId(values["to_id"])
    for name in ("verified", "inherited", "retained"):
        values[name] = bool(values[name])
    return Message(**values)


def to_steps(lines: str) -> tuple[Step, ...]:
    """Return the steps of a column `steps`."""
    return tuple(Step(*json.loads(line)) for line in lines.split("\n") if line)


def messages(cursor: sqlite3.Cursor) -> list[Message]:
    """Return all messages a statement selects, oldest first."""
    return sorted(map(to_message, cursor), key=lambda message: message.id)
