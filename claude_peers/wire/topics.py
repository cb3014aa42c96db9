"""What travels about topics: subscribing, and publishing to a topic, a scope or a workspace."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.limits import DEDUPE_KEY
from claude_peers.core.models import Message, Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRequest:
    """A peer and a topic, or a pattern with `+` for one level and `#` for all that follow."""

    id: str = ""
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastRequest:
    """A message for many: one of `topic`, `scope` and `workspace` says for whom.

    Attributes:
        topic: whoever has subscribed to it, as agentmesh has it.
        scope: `@machine`, `@repo`, `@dir`, `@fleet:NAME`, `@device:NAME` or `@name-pattern`;
            without the `@`, as RichelynScott's fork has it, no preview is made, for its clients
            would take it for an answer.
        workspace: the peers whose work tree or directory is called so (claude-peers-mcp PR 22);
            empty is the sender's own.
        cwd, git_root, repo: where a sender is that has not registered.
        retain: keep it as the topic's last value, for who subscribes later; an empty text ends
            that.
        ttl_ms: how long it is kept unread; none or 0 is an hour, a week is the most.
        qos: 0 is done once handed out, 1 once acknowledged; none is as each recipient wants it.
        dedupe_key: as for one message.
        confirm: how many recipients of an @scope the sender knows of; more than these, and more
            than five, are only told, and nothing is sent.
    """

    text: str
    from_id: str
    topic: str | None = None
    scope: str | None = None
    workspace: str | None = None
    cwd: str | None = None
    git_root: str | None = None
    repo: str | None = None
    retain: bool = False
    ttl_ms: int | None = None
    qos: int | None = None
    dedupe_key: str | None = field(default=None, metadata={"longest": DEDUPE_KEY})
    confirm: int = 0


def copy_view(recipient: Peer, message: Message) -> dict[str, Any]:
    """Return one recipient's copy of a broadcast: whose it is, and where it is in its life."""
    return {
        "id": recipient.id,
        "name": recipient.name,
        "presence": recipient.presence.value,
        "message_id": message.id,
        "state": message.state.value,
    }


def refusal_views(refused: Iterable[tuple[Peer, ClaudePeersError]]) -> list[dict[str, Any]]:
    """Return who did not get a copy, and why."""
    return [
        {
            "id": peer.id,
            "name": peer.name,
            "code": error.code,
            "error": error.fact,
            "remedy": error.remedy,
        }
        for peer, error in refused
    ]
