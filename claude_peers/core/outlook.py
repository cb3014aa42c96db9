"""What will become of a message, in words: warnings for its sender, and what happens next."""

from claude_peers.core.limits import NEARLY_FULL, Limits
from claude_peers.core.models import Message, Peer, Presence, State

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


def warnings(peer: Peer, *, unread: int, size: int, limits: Limits) -> list[str]:
    """Return what the sender of a message should know: that nobody will read it soon.

    Args:
        peer: the recipient.
        unread: how many messages are in its mailbox, with this one.
        size: their bytes.
        limits: what a mailbox holds.
    """
    found = []
    if peer.presence is not Presence.PRESENT:
        found.append(
            f"{peer.name} is not running (last seen {peer.last_seen}); the message waits in its "
            "mailbox for a successor."
        )
    elif not peer.route:
        found.append(f"{peer.name} has no push route: it reads this when it checks its messages.")
    full = limits.mailbox and (
        unread > NEARLY_FULL * limits.mailbox or size > NEARLY_FULL * limits.mailbox_bytes
    )
    if full:
        found.append(
            f"The mailbox of {peer.name} is nearly full ({unread} of {limits.mailbox} messages): "
            "it does not drain."
        )
    return found


def next_step(message: Message, recipient: Peer | None) -> str:
    """Return what happens next to a message, as a sentence."""
    name = recipient.name if recipient else message.to_id
    if message.state is State.QUEUED:
        return _waiting(name, recipient)
    route = (recipient.route if recipient else "") or "its route"
    return _NEXT[message.state].format(name=name, route=route, id=message.id)


def _waiting(name: str, recipient: Peer | None) -> str:
    if recipient is None or recipient.presence is Presence.DEPARTED:
        return f"{name} is gone for good: it waits for the next holder of that name, then dies."
    if recipient.presence is Presence.AWAY:
        return f"{name} is not running: it waits in the mailbox until {name} comes back."
    if recipient.route:
        return f"It is offered to {name} over {recipient.route}, and check_messages shows it."
    return f"{name} has no push route: it waits until {name} calls check_messages."
