"""Requests about mail: sending, taking, looking, acknowledging."""

from typing import TYPE_CHECKING, Any, cast

from claude_peers.broker.context import iso
from claude_peers.broker.mail import Sent
from claude_peers.broker.operations import agentmesh
from claude_peers.broker.operations.registry import Answer, operation
from claude_peers.core.delivery import Event
from claude_peers.core.errors import PeerNotFoundError, SecretRequiredError
from claude_peers.core.limits import NAME
from claude_peers.core.models import Caller
from claude_peers.core.outlook import next_step
from claude_peers.core.text import one_line
from claude_peers.wire.agentmesh import dead
from claude_peers.wire.letters import dead_letter_view, story_view, with_names
from claude_peers.wire.quirks import ACKNOWLEDGEMENT, agent_not_found
from claude_peers.wire.records import (
    DeadLettersRequest,
    MessageRequest,
    MessagesRequest,
    PeerRequest,
    PollRequest,
    SendMessageRequest,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import answers

OBSERVED = 100
"""Messages in one answer to an observer: at their longest they are 25 MB."""


@operation("/send-message", SendMessageRequest)
async def send_message(
    broker: "Broker", caller: Caller, request: SendMessageRequest
) -> "answers.Sent":
    """Store a message for one peer; ok means that it is durable."""
    sender = broker.roster.get(request.from_id)
    try:
        sent = await broker.mail.send(caller, request)
    except PeerNotFoundError:
        if sender is None or not sender.profile.agentmesh:
            raise
        raise agent_not_found(request.to_id) from None
    return _sent_view(sent)


@operation("/poll-messages", PollRequest)
async def poll_messages(
    broker: "Broker", caller: Caller, request: PollRequest
) -> "Answer[answers.Mail]":
    """Take unread mail; it counts as seen with the next poll, or with an acknowledgement."""
    if request.read_only or request.subscribe_all:
        return Answer({"messages": await _looked_at(broker, caller, request)}, lambda _whole: None)
    messages, handout = await broker.mail.poll(caller, request)
    rows, kept = agentmesh.speaks(broker, caller, request.id), request.ack_supported
    by = iso(broker.clock.wall() + broker.options.ack_within) if kept else None
    views = agentmesh.message_views(broker, messages, kept=kept, rows=rows, deadline=by)
    return Answer({"messages": views}, lambda whole: broker.mail.handed_over(handout, whole=whole))


@operation("/peek-messages", PeerRequest)
async def peek_messages(broker: "Broker", caller: Caller, request: PeerRequest) -> "answers.Mail":
    """Look at unread mail without taking it."""
    messages = await broker.mail.peek(caller, request.id)
    rows = agentmesh.speaks(broker, caller, request.id)
    return {"messages": agentmesh.message_views(broker, messages, kept=True, rows=rows)}


@operation("/ack-messages", MessagesRequest, also=ACKNOWLEDGEMENT)
async def ack_messages(
    broker: "Broker", caller: Caller, request: MessagesRequest
) -> "answers.Acknowledged":
    """Acknowledge messages as seen by the agent."""
    owners = (
        {request.id: request.message_ids}
        if request.id
        else await broker.fates.owners(caller, request.message_ids)
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
    story = await broker.fates.story(caller, request.message_id)
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
    found = await broker.fates.dead_letters(caller, request.id, limit=request.limit)
    if not found and request.id and caller.knows_secret:
        # Users know names; the id of a peer that is forgotten has to do where it has letters.
        owner = broker.managed(caller, request.id).id
        found = await broker.fates.dead_letters(caller, owner, limit=request.limit)
    views = [dead_letter_view(each, iso(each.ended_at or 0.0)) for each in found]
    if agentmesh.speaks(broker, caller, request.id):
        views = [view | {"reason": dead(view["reason"])} for view in views]
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


async def _looked_at(broker: "Broker", caller: Caller, request: PollRequest) -> list[Any]:
    """Return one mailbox's unread mail, or for the user all recent traffic, without any effect.

    Raises:
        SecretRequiredError: it asks for all traffic, and is not known to be the user.
    """
    if not request.subscribe_all:
        messages = await broker.mail.peek(caller, request.id)
        rows = agentmesh.speaks(broker, caller, request.id)
        return agentmesh.message_views(broker, messages, kept=True, rows=rows)
    if not caller.knows_secret:
        raise SecretRequiredError
    return agentmesh.message_views(
        broker, await agentmesh.observed(broker, limit=OBSERVED), kept=True
    )


def _via(request: MessagesRequest, default: str) -> str:
    return one_line(request.via, NAME) or default
