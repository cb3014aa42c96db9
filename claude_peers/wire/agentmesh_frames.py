"""The WebSocket frames of agentmesh 0.4 (broker.ts, shared/types.ts): one JSON object a message.

    client   {"type":"CONNECT","agent_id":…,"token":…[,"lwt":{…}]}         who it is, or
    client   {"type":"CONNECT","registration":{…}[,"lwt":{…}]}             who it becomes
    broker   {"type":"CONNECTED","agent_id":…,"token":…}
    broker   {"type":"MESSAGE","message":{…}}
    client   {"type":"ACK","message_id":…}
    client   {"type":"PING"}                          broker {"type":"PONG"}
    client   {"type":"DISCONNECT"}                    it leaves; anything else is a loss
    broker   {"type":"ERROR","code":"UNAUTHORIZED"|"PARSE_ERROR","message":…}

Other types, such as PUBREC, are ignored, as they are there.
"""

from typing import Any, Final

from claude_peers.core.errors import BadRequestError
from claude_peers.core.models import Message, Peer
from claude_peers.wire.agentmesh import row
from claude_peers.wire.codec import dumps, loads
from claude_peers.wire.records import message_view

PONG: Final = b'{"type":"PONG"}'
UNAUTHORIZED: Final = "UNAUTHORIZED"
PARSE_ERROR: Final = "PARSE_ERROR"


def parse(data: bytes) -> dict[str, Any]:
    """Return a client's frame; one that is JSON but no object is as good as an unknown type.

    Raises:
        BadRequestError: it is not JSON, or null.
    """
    frame = loads(data)
    if frame is None:
        raise BadRequestError("The frame is null, not an object with a `type`")
    return frame if isinstance(frame, dict) else {}


def acknowledged(frame: dict[str, Any]) -> int | None:
    """Return the message an ACK is about, or None if it names none."""
    number = frame.get("message_id")
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def connected(agent_id: str, token: str) -> bytes:
    """Return the answer to a CONNECT, with the token that the client shows from now on."""
    return dumps({"type": "CONNECTED", "agent_id": agent_id, "token": token})


def error(code: str, message: str) -> bytes:
    """Return why something was refused."""
    return dumps({"type": "ERROR", "code": code, "message": message})


def push(
    message: Message,
    sender: Peer | None,
    *,
    expires_at: str,
    ack_deadline: str | None,
    signature: str | None,
    deliveries: int,
) -> bytes:
    """Return a message; see `wire.agentmesh.row`."""
    more = row(
        message,
        expires_at=expires_at,
        ack_deadline=ack_deadline,
        signature=signature,
        deliveries=deliveries,
    )
    return dumps({"type": "MESSAGE", "message": message_view(message, sender) | more})
