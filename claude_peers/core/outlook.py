"""What will become of a message, in words: warnings for its sender, and what happens next."""

from claude_peers.core.limits import NEARLY_FULL, Limits
from claude_peers.core.models import Message, Peer, Presence, Receipt, State

BUSY = "busy"
"""What a peer does whose agent is in the middle of something."""
_NEXT = {
    State.LEASED: (
        "It was handed to {name}'s client and counts as read once the whole answer has arrived; "
        "else it is offered again."
    ),
    State.PUSHED: (
        "It was given to {name}'s client over {route}; no sign yet that the agent read it. It "
        "stays in the mailbox, and check_messages shows it."
    ),
    State.HELD: "{name} has muted this sender; it is offered when {name} unmutes it.",
    State.SEEN: "Nothing: {name} has read it.",
    State.ANSWERED: "Nothing: {name} has answered it.",
    State.DEAD: "Nothing by itself. Send it again: claude-peers resend {id}",
}


def warnings(peer: Peer, receipt: Receipt, *, limits: Limits) -> list[str]:
    """Return what the sender of a message should know: that nobody will read it soon.

    Args:
        peer: the recipient.
        receipt: the store's word, with how full the mailbox is.
        limits: what a mailbox holds.
    """
    found = []
    if peer.presence is not Presence.PRESENT:
        found.append(
            f"{peer.name} is not running (last seen {peer.last_seen}); "
            f"{_unheld(peer, named=receipt.message.to_name is not None)}."
        )
    elif not peer.route and peer.activity != BUSY:  # one that works may have one when it is done
        found.append(f"{peer.name} has no push route: it reads this when it checks its messages.")
    found += _reply(receipt)
    full = limits.mailbox and (
        receipt.unread > NEARLY_FULL * limits.mailbox
        or receipt.size > NEARLY_FULL * limits.mailbox_bytes
    )
    if full:
        found.append(
            f"The mailbox of {peer.name} is nearly full ({receipt.unread} messages, "
            f"{receipt.size} bytes): it does not drain."
        )
    return found


def _reply(receipt: Receipt) -> list[str]:
    """Return what is wrong with the message that a new one says it replies to."""
    number, before = receipt.message.reply_to, receipt.replied_to
    if number is None or receipt.duplicate:
        return []
    if before is None:
        return [f"There is no message {number} to reply to."]
    if before.from_id != receipt.message.to_id:
        other = f"Message {number} came from {before.from_id}, which does not get this"
        return [f"{other}: it still waits for its answer."]
    return []


def next_step(message: Message, recipient: Peer | None) -> str:
    """Return what happens next to a message, as a sentence."""
    name = recipient.name if recipient else message.to_id
    if message.state is State.QUEUED:
        return _waiting(name, recipient, named=message.to_name is not None)
    route = (recipient.route if recipient else "") or "its route"
    return _NEXT[message.state].format(name=name, route=route, id=message.id)


def _unheld(peer: Peer, *, named: bool) -> str:
    """Return what becomes of a message to somebody who is not there."""
    if peer.presence is Presence.AWAY:
        return "the message waits in its mailbox for a successor"
    if named:
        return "the message waits for the next holder of that name in its directory"
    return "nobody takes over its mailbox: send the message to somebody else"


def _waiting(name: str, recipient: Peer | None, *, named: bool) -> str:
    if recipient is None or recipient.presence is Presence.DEPARTED:
        what = "it waits for the next holder of that name, then dies" if named else "it will die"
        return f"{name} is gone for good: {what}."
    if recipient.presence is Presence.AWAY:
        return f"{name} is not running: it waits in the mailbox until {name} comes back."
    if recipient.route:
        return f"It is offered to {name} over {recipient.route}, and check_messages shows it."
    if recipient.activity == BUSY:
        return f"{name} is busy: it waits until {name} is done, or calls one of our tools."
    return f"{name} has no push route: it waits until {name} calls check_messages."
