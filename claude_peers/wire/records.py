"""Request bodies as records, and peers and messages as the JSON that travels.

Field names are upstream's (claude-peers-mcp shared/types.ts); what we add never changes the
meaning of theirs.
"""

from dataclasses import dataclass, field
from typing import Any

from claude_peers.core.limits import DEDUPE_KEY
from claude_peers.core.models import Message, Peer, Presence
from claude_peers.wire.webhooks import TransportRequest
from claude_peers.wire.wills import LastWill


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """Join, or come back: a `token` of an earlier registration keeps id, name and mail.

    Attributes:
        name: the wanted name; a suffix is added when somebody has it.
        keys: hashed identity keys, strongest first (`core.identity`).
        route: how the client reaches its agent, as the roster shows it.
        after: the last message pushed to this process; with its token, pushes go on from there.
        proof: proof of the user's secret over the connection's challenge (`wire.proof`).
        share: `full` lets peers on other machines see all of it; else they see less.
        lwt: what is published when it is lost; without it, an earlier one holds.
        transport: how it wants to be reached; without it, an earlier webhook stays.
        capabilities, fleet_id, device_id: what others can look for it by.
        default_qos: the quality of messages to it whose sender asks for none, 0 or 1.
        default_ttl_ms: how long these are kept unread; none is a day.
    """

    pid: int | None = None
    cwd: str = ""
    git_root: str | None = None
    tty: str | None = None
    summary: str = ""
    hostname: str | None = None
    agent_type: str | None = None
    agent_name: str | None = None
    name: str | None = None
    client: str | None = None
    repo: str | None = None
    route: str = ""
    keys: tuple[str, ...] = ()
    token: str | None = None
    after: int = 0
    proof: str | None = None
    share: str = ""
    lwt: LastWill | None = None
    transport: TransportRequest | None = None
    capabilities: tuple[str, ...] = ()
    fleet_id: str | None = None
    device_id: str | None = None
    default_qos: int | None = None
    default_ttl_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRequest:
    """Anything that needs no more than the peer it is about."""

    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummaryRequest:
    """A new summary for a peer."""

    summary: str
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameRequest:
    """Another name for a peer."""

    id: str
    name: str = field(metadata={"form": "name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MuteRequest:
    """Whose messages a peer wants to be offered, or not; `peer_id` may be a name as well."""

    id: str
    peer_id: str
    muted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """How a peer is reached now, and whether its agent is `idle` or `busy`."""

    id: str
    route: str = ""
    activity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRequest:
    """Further identity keys of a peer, strongest first."""

    id: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPeersRequest:
    """Who is there; `scope` other than directory and repo means the machine.

    Attributes:
        gone: with those who are away or have left, as long as they are remembered.
        agent_type, fleet_id, device_id: only those; the scopes fleet and device need one as well.
        capabilities: only those that have all of these.
        online_only: only those with a connection over which they are told at once.
    """

    scope: str = "machine"
    cwd: str | None = None
    git_root: str | None = None
    repo: str | None = None
    exclude_id: str = ""
    gone: bool = False
    agent_type: str = ""
    capabilities: tuple[str, ...] = ()
    fleet_id: str = ""
    device_id: str = ""
    online_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessageRequest:
    """A message for one peer.

    Attributes:
        to_id: the recipient's id; our clients may also give a name, `name@host` or a directory.
        reply_to: id of the message this one answers.
        dedupe_key: the same key with the same body within 10 minutes is the same message; 256
            characters at most.
        intent: `request`, `inform` or `ack` (`core.models.Intent`); anything else is none.
        ttl_ms: how long it is kept unread; none is as the recipient wants it, 0 is a day, a week is
            the most.
        qos: 0 is done once handed out, 1 once acknowledged; none is as the recipient wants it.
        answer_within_ms: when the sender of a request is told that no answer came.
        topic: what it was published to at another broker, from which it is passed on; only for
            senders who are not registered here.
    """

    to_id: str
    text: str
    from_id: str
    reply_to: int | None = None
    dedupe_key: str | None = field(default=None, metadata={"longest": DEDUPE_KEY})
    intent: str = ""
    ttl_ms: int | None = None
    qos: int | None = None
    answer_within_ms: int | None = None
    topic: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """Take unread mail.

    Attributes:
        ack_supported: hand out on a lease that ends with `/ack-messages`, not with the next poll.
        limit: at most so many; 0 is all there is.
        exclude: message ids the caller has in hand already.
        wait_s: if there is nothing, wait so many seconds (55 at most) for a message.
        wait_ms: the same in milliseconds; the longer of the two holds.
        read_only: only look, as `/peek-messages` does.
        subscribe_all: only look, at all messages of the last 5 minutes; for the user only.
    """

    id: str = ""
    ack_supported: bool = False
    limit: int = 0
    exclude: tuple[int, ...] = ()
    wait_s: float = 0.0
    wait_ms: float = 0.0
    read_only: bool = False
    subscribe_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRequest:
    """Something that happened to messages of one mailbox; `via` says how, for their stories."""

    id: str = ""
    message_ids: tuple[int, ...]
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRequest:
    """Anything that needs no more than the message it is about."""

    message_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersRequest:
    """The dead letters of one mailbox; without `id`, those of all, for the user only."""

    id: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRequest:
    """Messages between two ids, in whatever state; for the user only.

    Attributes:
        before: 0 is the end.
        newest: of more than `limit`, the last ones instead of the first.
    """

    after: int = 0
    before: int = 0
    limit: int = 100
    newest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDownRequest:
    """Let another node lead; `hold_ms` keeps everybody from campaigning for so long."""

    hold_ms: int = 0


def peer_view(peer: Peer) -> dict[str, Any]:
    """Return a peer as `/list-peers` shows it: upstream's fields, then ours."""
    view = {
        "id": peer.id,
        "pid": peer.pid,
        "cwd": peer.cwd,
        "git_root": peer.git_root,
        "tty": peer.tty,
        "summary": peer.summary,
        "registered_at": peer.registered_at,
        "last_seen": peer.last_seen,
        "name": peer.name,
        "hostname": peer.host,
        "agent_type": peer.client,
        "route": peer.route,
        "activity": peer.activity,
        "verified": peer.trust.value,
    }
    gone = peer.presence is not Presence.PRESENT
    return view | {"presence": peer.presence.value} if gone else view


def message_view(message: Message, sender: Peer | None = None) -> dict[str, Any]:
    """Return a message as upstream's pollers take it: upstream's fields, then ours."""
    view: dict[str, Any] = {
        "id": message.id,
        "from_id": message.from_id,
        "to_id": message.to_id,
        "text": message.text,
        "sent_at": message.sent_at,
        "delivered": 0,
        "topic": message.topic,
        "uid": message.uid,
        "verified": message.verified,
    }
    more = {
        "from_name": sender.name if sender else None,
        "reply_to": message.reply_to,
        "intent": message.intent or None,
        "thread": message.thread,
        "inherited": message.inherited or None,
        "redelivered": message.deliveries or None,
        "retained": message.retained or None,
    }
    return view | {name: value for name, value in more.items() if value is not None}


def kept_view(message: Message, sender: Peer | None = None) -> dict[str, Any]:
    """Return a message as it goes to who keeps it: with the time after which it is dead."""
    return message_view(message, sender) | {"expires_at": message.expires_at}
