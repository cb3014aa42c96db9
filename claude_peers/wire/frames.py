r"""Frames of the live connection: one JSON object a line, both ways, after an HTTP upgrade.

    client   GET /live, Upgrade: claude-peers/1, a nonce
    broker   101, proof and challenge
    client   {"id":1,"op":"/register","body":{…}}     the first request, always
    broker   {"re":1,"status":200,"body":{…}}
    broker   {"message":{…},"from":{…}}               a push, in the order of acceptance
    broker   {"settled":[ID,…]}                       read by another server of the same agent
    broker   {"leader":{"pid":…,"started":…},"epoch":EPOCH}    who leads, after the first request
    broker   {"ping":EPOCH} · {"standby":true}

Requests may be sent without awaiting answers; the broker takes them in order.
"""

from collections.abc import Collection
from typing import Any, Final

from claude_peers.core.errors import BadRequestError
from claude_peers.core.models import Process
from claude_peers.wire.codec import dumps, load_object

LIVE_PATH: Final = "/live"
PROTOCOL: Final = "claude-peers/1"
MOST: Final = 2 * 1024 * 1024
"""Bytes of one frame: a body of the largest size, its escapes and the envelope."""
PING_EVERY: Final = 2.0
"""Seconds between two pings of a broker."""
SILENCE: Final = 6.0
"""Seconds without any frame after which a client looks whether its broker is stopped."""


def request(number: int, operation: str, body: dict[str, Any]) -> bytes:
    """Return a client's request."""
    return dumps({"id": number, "op": operation, "body": body}) + b"\n"


def parse_request(line: bytes) -> tuple[int, str, dict[str, Any]]:
    """Return number, operation and body of a client's request.

    Raises:
        BadRequestError: it is none.
    """
    frame = load_object(line)
    match frame.get("id"), frame.get("op"), frame.get("body", {}):
        case int(number), str(operation), dict(body):
            return number, operation, body
        case _:
            raise BadRequestError("The frame is not {id, op, body}")


def leader(process: Process, epoch: int) -> bytes:
    """Return who leads, so that a follower can tell a stopped leader from a dead one."""
    told = {"pid": process.pid, "started": process.started}
    return dumps({"leader": told, "epoch": epoch}) + b"\n"


def answer(number: int, status: int, body: Any) -> bytes:
    """Return a broker's answer to request `number`."""
    return dumps({"re": number, "status": status, "body": body}) + b"\n"


def push(message: dict[str, Any], sender: dict[str, Any] | None) -> bytes:
    """Return a push; `sender` is the sending peer as far as it is known."""
    return dumps({"message": message, "from": sender}) + b"\n"


def settled(ids: Collection[int]) -> bytes:
    """Return that messages of the peer have been read, though not over its own connection."""
    return dumps({"settled": list(ids)}) + b"\n"


def ping(epoch: int) -> bytes:
    """Return a sign of life."""
    return b'{"ping":%d}\n' % epoch


def standby() -> bytes:
    """Return the word that makes a client the standby."""
    return b'{"standby":true}\n'
