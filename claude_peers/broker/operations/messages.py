"""Requests about mail: sending, taking, looking, acknowledging."""

from typing import TYPE_CHECKING, Any

from claude_peers.broker.operations.registry import Answer, operation
from claude_peers.core.delivery import Event
from claude_peers.core.models import Caller
from claude_peers.wire.quirks import acknowledged
from claude_peers.wire.records import (
    MessagesRequest,
    PeerRequest,
    PollRequest,
    SendMessageRequest,
    message_view,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker


@operation("/send-message", SendMessageRequest)
async def send_message(broker: "Broker", caller: Caller, request: SendMessageRequest) -> Any:
    """Store a message for one peer; ok means that it is durable."""
    receipt, recipient = await broker.send(caller, request)
    answer = {
        "ok": True,
        "message_id": receipt.message.id,
        "state": receipt.message.state,
        "to_id": recipient.id,
        "to_name": recipient.name,
        "presence": recipient.presence,
        "route": recipient.route,
        "last_seen": recipient.last_seen,
    }
    return answer | {"duplicate": True} if receipt.duplicate else answer


@operation("/poll-messages", PollRequest)
async def poll_messages(broker: "Broker", caller: Caller, request: PollRequest) -> Any:
    """Take unread mail; it counts as seen with the next poll, or with an acknowledgement."""
    messages, handout = await broker.poll(caller, request)
    body = {"messages": [message_view(message) for message in messages]}
    return Answer(body, lambda whole: broker.handed_over(handout, whole=whole))


@operation("/peek-messages", PeerRequest)
async def peek_messages(broker: "Broker", caller: Caller, request: PeerRequest) -> Any:
    """Look at unread mail without taking it."""
    messages = await broker.peek(caller, request.id)
    return {"messages": [message_view(message) for message in messages]}


@operation("/ack-messages", MessagesRequest, reshape=acknowledged)
async def ack_messages(broker: "Broker", caller: Caller, request: MessagesRequest) -> Any:
    """Acknowledge messages as seen by the agent."""
    owners = (
        {request.id: request.message_ids}
        if request.id
        else await broker.owners(request.message_ids)
    )
    acked = 0
    for owner, ids in owners.items():
        acked += len(await broker.settle(caller, owner, ids, Event.SEE))
    return {"ok": True, "acked": acked}


@operation("/release-messages", MessagesRequest, reshape=acknowledged)
async def release_messages(broker: "Broker", caller: Caller, request: MessagesRequest) -> Any:
    """Give messages back that were taken and not shown to the agent."""
    moved = await broker.settle(caller, request.id, request.message_ids, Event.RETURN)
    return {"ok": True, "released": len(moved)}


@operation("/pushed-messages", MessagesRequest, reshape=acknowledged)
async def pushed_messages(broker: "Broker", caller: Caller, request: MessagesRequest) -> Any:
    """Tell that messages went to the agent over a proven route; no evidence that it saw them."""
    moved = await broker.settle(caller, request.id, request.message_ids, Event.PUSH)
    return {"ok": True, "pushed": len(moved)}
