"""Requests whose connection is not a request's any more once they are answered."""

import base64
import binascii
import hashlib
from typing import Final

from claude_peers.gateway.errors import Refusal
from claude_peers.gateway.framing import Head
from claude_peers.wire import frames

WS_PATH: Final = "/ws"
EVENTS_PATH: Final = "/events"
_FEDERATION: Final = "/ws/federation"
_VERSION: Final = "13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NONCE: Final = 16
"""Bytes of a WebSocket key."""
Headers = list[tuple[str, str]]


def check_live(head: Head) -> None:
    """Let a request for the live connection pass.

    Raises:
        Refusal: it is none.
    """
    if _upgrades(head, frames.PROTOCOL):
        return
    raise Refusal(
        426,
        "upgrade_required",
        fact="The live connection is an upgrade",
        remedy=(
            f"Send GET {frames.LIVE_PATH} with Connection: Upgrade, "
            f"Upgrade: {frames.PROTOCOL} and no body."
        ),
        headers=(("Upgrade", frames.PROTOCOL), ("Connection", "Upgrade")),
    )


def wants_websocket(head: Head) -> bool:
    """Whether a request is for a WebSocket: on any path but that of the live connection.

    agentmesh 0.4 (broker.ts) takes one on whatever path.
    """
    asked = head.headers.get("upgrade", "").lower() == "websocket" and head.method == "GET"
    return head.path == WS_PATH or (asked and head.path != frames.LIVE_PATH)


def websocket_headers(head: Head) -> Headers:
    """Return the headers that accept a WebSocket.

    Raises:
        Refusal: it is not RFC 6455, or for agentmesh's federation.
    """
    if head.path == _FEDERATION:
        raise Refusal(
            404,
            "not_found",
            fact="There is no federation of brokers here",
            remedy="Let the other machine join: `claude-peers invite NAME` here, `join` there.",
        )
    key = head.headers.get("sec-websocket-key", "")
    versions = head.headers.get("sec-websocket-version", "")
    if not _upgrades(head, "websocket") or versions != _VERSION or not _is_nonce(key):
        raise Refusal(
            426,
            "upgrade_required",
            fact="This is the way to a WebSocket, and the request does not ask for one as RFC 6455",
            remedy=(
                f"Use a WebSocket client with ws://HOST:PORT{WS_PATH}; docs/any-agent.md shows "
                "how, and what else there is."
            ),
            headers=(
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", _VERSION),
            ),
        )
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    accepted = base64.b64encode(digest).decode()
    return [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accepted),
    ]


def _upgrades(head: Head, protocol: str) -> bool:
    named = [each.strip().lower() for each in head.headers.get("connection", "").split(",")]
    wanted = head.headers.get("upgrade", "").lower() == protocol and "upgrade" in named
    return wanted and head.method == "GET" and head.version == "1.1" and not head.content_length


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _NONCE
    except (binascii.Error, ValueError):
        return False
