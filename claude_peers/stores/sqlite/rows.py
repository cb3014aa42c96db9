"""Records to rows and back; SQL names its columns after the records' fields."""

import json
import sqlite3
from typing import Any

from claude_peers.core.models import Message, Peer, PeerId, Presence, Process, State, Trust

PEER = (
    "id, name, pid, process_pid, process_started, boot, host, cwd, git_root, repo, tty, summary, "
    "client, route, trust, presence, token_hash, keys, registered_at, last_seen"
)
_NAMES = PEER.split(", ")
SAVE_PEER = (
    f"INSERT INTO peer ({PEER}) VALUES ({', '.join(':' + name for name in _NAMES)}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _NAMES[1:])}"
)
MESSAGE = "id, uid, from_id, to_id, text, sent_at, state, verified, reply_to, deliveries"


def peer_row(peer: Peer) -> dict[str, Any]:
    """Return the named parameters of `SAVE_PEER`."""
    row = {name: getattr(peer, name) for name in _NAMES if not name.startswith("process_")}
    row["process_pid"] = peer.process.pid if peer.process else None
    row["process_started"] = peer.process.started if peer.process else None
    row["keys"] = json.dumps(peer.keys)
    row["trust"], row["presence"] = peer.trust.value, peer.presence.value
    return row


def to_peer(row: tuple[Any, ...]) -> Peer:
    """Return the peer of a row of `PEER`."""
    values = dict(zip(_NAMES, row, strict=True))
    pid, started = values.pop("process_pid"), values.pop("process_started")
    values["process"] = None if pid is None else Process(pid=pid, started=started)
    values["keys"] = tuple(json.loads(values["keys"]))
    values["trust"], values["presence"] = Trust(values["trust"]), Presence(values["presence"])
    return Peer(**values)


def to_message(row: tuple[Any, ...]) -> Message:
    """Return the message of a row of `MESSAGE`."""
    return Message(
        id=row[0],
        uid=row[1],
        from_id=row[2],
        to_id=PeerId(row[3]),
        text=row[4],
        sent_at=row[5],
        state=State(row[6]),
        verified=bool(row[7]),
        reply_to=row[8],
        deliveries=row[9],
    )


def messages(cursor: sqlite3.Cursor) -> list[Message]:
    """Return all messages a statement selects, oldest first."""
    return sorted(map(to_message, cursor), key=lambda message: message.id)
