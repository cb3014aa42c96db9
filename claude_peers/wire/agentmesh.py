"""Peers and messages in the shapes of agentmesh 0.4 (broker.ts, shared/types.ts)."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final, Protocol

from claude_peers.core.delivery import Event, cause
from claude_peers.core.models import Message, Peer
from claude_peers.core.profile import agent_type, transport
from claude_peers.wire.records import peer_view

_DEAD: Final[dict[Event | None, str]] = {
    Event.EXPIRE: "TTL_EXPIRED",
    Event.GIVE_UP: "MAX_RETRIES_EXCEEDED",
}


class Signable(Protocol):
    """What a signature covers."""

    @property
    def id(self) -> Any:
        """The message's number."""
        ...

    @property
    def from_id(self) -> str:
        """Who sent it."""
        ...

    @property
    def to_id(self) -> str:
        """Whose mailbox it is in."""
        ...

    @property
    def text(self) -> str:
        """What it says."""
        ...

    @property
    def sent_at(self) -> str:
        """ISO 8601, as it travels."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """The part of a message that its signature covers."""

    id: str = ""
    from_id: str = ""
    to_id: str = ""
    text: str = ""
    sent_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """A message and its `signature`, to be compared by who has the fleet's secret."""

    message: SignedMessage | None = None
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyRequest:
    """Whatever a body says, it changes nothing."""


def sign(secret: bytes, message: Signable) -> str:
    """Return the hexadecimal HMAC-SHA256 of a message's number, ends, text and time."""
    told = f"{message.id}:{message.from_id}:{message.to_id}:{message.text}:{message.sent_at}"
    return hmac.new(secret, told.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def verify(secret: bytes, message: Signable, signature: str) -> bool:
    """Whether a signature is this message's; takes the same time wherever it differs."""
    given = signature.encode("utf-8", "replace")
    return hmac.compare_digest(sign(secret, message).encode(), given)


def listed(peer: Peer, *, online: bool, lwt_topic: str | None) -> dict[str, Any]:
    """Return a peer as `/list-peers` shows it: upstream's fields, agentmesh's, ours.

    Of its transport only the type is told: where a webhook leads is its owner's business.
    """
    profile = peer.profile
    return peer_view(peer) | {
        "agent_type": agent_type(peer.client, profile),
        "agent_name": profile.agent_name,
        "capabilities": list(profile.capabilities),
        "transport": {"type": transport(peer.route)},
        "fleet_id": profile.fleet_id,
        "device_id": profile.device_id,
        "lwt_topic": lwt_topic,
        "online": online,
        "broker_url": None,
    }


def dead(reason: str) -> str:
    """Return why a message is dead in agentmesh's words; what it has no word for stays as it is."""
    return _DEAD.get(cause(reason), reason)


def retries(deliveries: int) -> int:
    """Return how often a message is tried again that is handed out so many times."""
    return deliveries - 1


def row(
    message: Message,
    *,
    expires_at: str,
    ack_deadline: str | None,
    signature: str | None,
    deliveries: int,
) -> dict[str, Any]:
    """Return what a poller of agentmesh's expects of a message beside upstream's fields.

    Times are ISO 8601, UTC; `deliveries` is how often a message is handed out.
    """
    return {
        "qos": message.qos,
        "expires_at": expires_at,
        "ack_deadline": ack_deadline,
        "retry_count": message.deliveries,
        "max_retries": retries(deliveries),
        "signature": signature,
    }
