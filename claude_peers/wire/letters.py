"""Messages as lists for people show them: in whatever state, with what became of them."""

from collections.abc import Callable
from typing import Any

from claude_peers.core.models import Message, Peer, Story
from claude_peers.wire.records import kept_view


def letter_view(message: Message) -> dict[str, Any]:
    """Return a message as the user sees it in lists: with its state, and why it is dead."""
    return kept_view(message) | {
        "state": message.state.value,
        "ended_at": message.ended_at,
        "reason": message.reason,
    }


def with_names(view: dict[str, Any], known: Callable[[str], Peer | None]) -> dict[str, Any]:
    """Return a message's view with what its two ends are called now, as far as they are known."""
    ends = {name: known(view[f"{name}_id"]) for name in ("from", "to")}
    return view | {f"{name}_name": peer and peer.name for name, peer in ends.items()}


def dead_letter_view(message: Message, failed_at: str) -> dict[str, Any]:
    """Return a dead letter: agentmesh's fields (broker.ts, /dead-letters), then ours."""
    return {
        "id": message.id,
        "original_message_id": message.id,
        "from_id": message.from_id,
        "to_id": message.to_id,
        "text": message.text,
        "topic": message.topic,
        "sent_at": message.sent_at,
        "failed_at": failed_at,
        "reason": message.reason,
        "deliveries": message.deliveries,
    }


def story_view(story: Story) -> dict[str, Any]:
    """Return what happened to a message, its text left out."""
    view = letter_view(story.message)
    del view["text"]
    steps = [{"at": step.at, "event": step.event, "via": step.via} for step in story.steps]
    return view | {"hops": story.message.hops, "steps": steps}
