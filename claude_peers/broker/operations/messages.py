"""Requests about mail: sending, taking, looking, acknowledging."""

from typing import TYPE_CHECKING, Any, cast

from claude_peers.broker.context import iso
from claude_peers.broker.mail import Sent
from claude_peers.broker.operations.registry import Answer, operation
from claude_peers.core.delivery import Event
from claude_peers.core.limits import NAME
from claude_peers.core.models import Caller
from claude_peers.core.outlook import next_step
from claude_peers.core.text import one_line
from claude_peers.wire.quirks import ACKNOWLEDGEMENT
from claude_peers.wire.records import (
    DeadLettersRequest,
    MessageRequest,
    MessagesRequest,
    PeerRequest,
    PollRequest,
    SendMessageRequest,
    dead_letter_view,
    kept_view,
    message_view,
    story_view,
    with_names,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import answers


@operation("/send-message", SendMessageRequest)
async def send_message(
    broker: "Broker", caller: Caller, request: SendMessageRequest
) -> "answers.Sent":
    """Store a message for one peer; ok means that it is durable."""
    return _sent_view(await broker.mail.send(caller, request))


@operation("/poll-messages", PollRequest)
async def poll_messages(
    broker: "Broker", caller: Caller, request: PollRequest
) -> "Answer[answers.Mail]":
    """Take unread mail; it counts as seen with the next poll, or with an acknowledgement."""
    messages, handout = await broker.mail.poll(caller, request)
    # Upstream's pollers take each message as it is, and look its sender up themselves.
    if request.ack_supported:
        views: list[Any] = [kept_view(each, broker.roster.get(each.from_id)) for each in messages]
    else:
        views = [message_view(each) for each in messages]
    return Answer({"messages": views}, lambda whole: broker.mail.handed_over(handout, whole=whole))


@operation("/peek-messages", PeerRequest)
async def peek_messages(broker: "Broker", caller: Caller, request: PeerRequest) -> "answers.Mail":
    """Look at unread mail without taking it."""
    messages = await broker.mail.peek(caller, request.id)
    known = broker.roster.get
    views: list[Any] = [kept_view(each, known(each.from_id)) for each in messages]
    return {"messages": views}


@operation("/ack-messages", MessagesRequest, also=ACKNOWLEDGEMENT)
async def ack_messages(
    broker: "Broker", caller: Caller, request: MessagesRequest
) -> "answers.Acknowledged":
    """Acknowledge messages as seen by the agent."""
    owners = (
        {request.id: request.message_ids}
        if request.id
        else await broker.mail.owners(request.message_ids)
    )
    acked = 0
    for owner, ids in owners.items():
        acked += len(
            await broker.mail.settle(caller, owner, ids, Event.SEE, via=_via(request, "ack"))
        )
    return {"ok": True, "acked": acked}


@operation("/release-messages", MessagesRequest, also=ACKNOWLEDGEMENT)
async def release_messages(
    broker: "Broker", caller: Caller, request: MessagesRequest
) -> "answers.Released":
    """Give messages back that were taken and not shown to the agent."""
    moved = await broker.mail.settle(
        caller, request.id, request.message_ids, Event.RETURN, via=_via(request, "release")
    )
    return {"ok": True, "released": len(moved)}


@operation("/pushed-messages", MessagesRequest, also=ACKNOWLEDGEMENT)
async def pushed_messages(
    broker: "Broker", caller: Caller, request: MessagesRequest
) -> "answers.Pushed":
    """Tell that messages went to the agent over a proven route; no evidence that it saw them."""
    moved = await broker.mail.settle(
        caller, request.id, request.message_ids, Event.PUSH, via=_via(request, "push")
    )
    return {"ok": True, "pushed": len(moved)}


@operation("/message-status", MessageRequest)
async def message_status(
    broker: "Broker", caller: Caller, request: MessageRequest
) -> "answers.Fate":
    """Tell what became of a message: each step, and what happens next."""
    story = await broker.mail.story(caller, request.message_id)
    recipient = broker.roster.get(story.message.to_id)
    sender = broker.roster.get(story.message.from_id)
    told = story_view(story) | {
        "from_name": sender.name if sender else None,
        "to_name": recipient.name if recipient else story.message.to_name,
        "presence": recipient.presence if recipient else None,
        "next": next_step(story.message, recipient),
    }
    return cast("answers.Fate", told)


@operation("/dead-letters", DeadLettersRequest)
async def dead_letters(
    broker: "Broker", caller: Caller, request: DeadLettersRequest
) -> "answers.DeadLetters":
    """List messages that nobody read in time, newest first."""
    found = await broker.mail.dead_letters(caller, request.id, limit=request.limit)
    if not found and request.id and caller.knows_secret:
        # Users know names; the id of a peer that is forgotten has to do where it has letters.
        owner = broker.managed(caller, request.id).id
        found = await broker.mail.dead_letters(caller, owner, limit=request.limit)
    views = [dead_letter_view(each, iso(each.ended_at or 0.0)) for each in found]
    named: list[Any] = [with_names(view, broker.roster.get) for view in views]
    return {"dead_letters": named}


@operation("/resend-message", MessageRequest)
async def resend_message(
    broker: "Broker", caller: Caller, request: MessageRequest
) -> "answers.Sent":
    """Send a dead letter again, as a new message."""
    return _sent_view(await broker.mail.resend(caller, request.message_id))


def _sent_view(sent: Sent) -> "answers.Sent":
    receipt, recipient = sent.receipt, sent.recipient
    answer: answers.Sent = {
        "ok": True,
        "message_id": receipt.message.id,
        "state": receipt.message.state,
        "to_id": recipient.id,
        "to_name": recipient.name,
        "presence": recipient.presence,
        "route": recipient.route,
        "activity": recipient.activity,
        "last_seen": recipient.last_seen,
        "unread": receipt.unread,
        "warnings": sent.warnings,
    }
    if receipt.duplicate:
        answer["duplicate"] = True
    return answer


def _via(request: MessagesRequest, default: str) -> str:
    return one_line(request.via, NAME) or default
