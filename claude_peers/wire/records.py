"""Request bodies as records, and peers and messages as the JSON that travels.

Field names are upstream's (claude-peers-mcp shared/types.ts); what we add never changes the
meaning of theirs.
"""

from dataclasses import dataclass
from typing import Any

from claude_peers.core.models import Message, Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """Join, or come back: a `token` of an earlier registration keeps id, name and mail.

    Attributes:
        name: the wanted name; a suffix is added when somebody has it.
        keys: hashed identity keys, strongest first (`core.identity`).
        route: how the client reaches its agent, as the roster shows it.
        after: the last message pushed to this process; with its token, pushes go on from there.
        proof: proof of the user's secret over the connection's challenge (`wire.proof`).
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
class ListPeersRequest:
    """Who is there; `scope` other than directory and repo means the machine."""

    scope: str = "machine"
    cwd: str | None = None
    git_root: str | None = None
    repo: str | None = None
    exclude_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessageRequest:
    """A message for one peer.

    Attributes:
        to_id: the recipient's id; our clients may also give a name, `name@host` or a directory.
        reply_to: id of the message this one answers.
        dedupe_key: the same key with the same body within 10 minutes is the same message.
    """

    to_id: str
    text: str
    from_id: str
    reply_to: int | None = None
    dedupe_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """Take unread mail.

    Attributes:
        ack_supported: hand out on a lease that ends with `/ack-messages`, not with the next poll.
        limit: at most so many; 0 is all there is.
        exclude: message ids the caller has in hand already.
    """

    id: str = ""
    ack_supported: bool = False
    limit: int = 0
    exclude: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRequest:
    """Something that happened to messages of one mailbox."""

    id: str = ""
    message_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDownRequest:
    """Let another node lead; `hold_ms` keeps everybody from campaigning for so long."""

    hold_ms: int = 0


def peer_view(peer: Peer) -> dict[str, Any]:
    """Return a peer as `/list-peers` shows it: upstream's fields, then ours."""
    return {
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
        "verified": peer.trust.value,
    }


def message_view(message: Message) -> dict[str, Any]:
    """Return a message as polls and pushes carry it: upstream's fields, then ours."""
    view: dict[str, Any] = {
        "id": message.id,
        "from_id": message.from_id,
        "to_id": message.to_id,
        "text": message.text,
        "sent_at": message.sent_at,
        "delivered": 0,
        "uid": message.uid,
        "verified": message.verified,
    }
    if message.reply_to is not None:
        view["reply_to"] = message.reply_to
    if message.deliveries:
        view["redelivered"] = message.deliveries
    return view
