"""Requests about messages for many: subscribing, and publishing to a topic or a scope."""

from typing import TYPE_CHECKING, Any

from claude_peers.broker.operations.registry import operation
from claude_peers.core.models import Caller
from claude_peers.wire.topics import BroadcastRequest, TopicRequest, copy_view, refusal_views

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import topic_answers


@operation("/subscribe", TopicRequest)
async def subscribe(
    broker: "Broker", caller: Caller, request: TopicRequest
) -> "topic_answers.Subscribed":
    """Have what is published to a topic from now on, and its last value if that is kept."""
    subscribed = await broker.topics.subscribe(caller, request.id, request.topic)
    return {
        "ok": True,
        "topics": list(subscribed.patterns),
        "retained": subscribed.given,
        "missed": subscribed.missed,
    }


@operation("/unsubscribe", TopicRequest)
async def unsubscribe(
    broker: "Broker", caller: Caller, request: TopicRequest
) -> "topic_answers.Unsubscribed":
    """Have no more of a topic."""
    left = await broker.topics.unsubscribe(caller, request.id, request.topic)
    return {"ok": True, "topics": list(left.patterns)}


@operation("/broadcast", BroadcastRequest)
async def broadcast(
    broker: "Broker", caller: Caller, request: BroadcastRequest
) -> "topic_answers.Published":
    """Store a message for each peer of a topic, a scope or a workspace, in one transaction."""
    published = await broker.broadcasts.send(caller, request)
    ids = [peer.id for peer, _ in published.copies]
    copies: list[Any] = [copy_view(peer, message) for peer, message in published.copies]
    refused: list[Any] = refusal_views(published.refused)
    answer: topic_answers.Published = {
        "ok": True,
        "delivered_to": list(ids),
        "sent_to": len(ids),
        "copies": copies,
        "refused": refused,
    }
    if published.unconfirmed:
        answer["preview"] = [{"id": peer.id, "name": peer.name} for peer in published.unconfirmed]
    if published.duplicate:
        answer["duplicate"] = True
    return answer
