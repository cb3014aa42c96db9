"""The life of one message, as a table.

Rules:
    1. A message is *accepted* once it is durable; from then on it is in exactly one state.
    2. Handing a message to anything that cannot answer is not delivery. A legacy poll *leases*;
       a push over a proven route marks it *pushed*; neither is the end.
    3. A muted sender's messages are *held*: accepted, and offered only once they are admitted.
    4. Only evidence ends it: its text was in a tool result that was written whole, it was
       acknowledged, or it was answered. Evidence may arrive in any unread state, also after a
       take-over has put the message back to *queued*. A sender may ask for less (`qos` 0): then
       it is enough that it was written whole to a stream whose client acknowledges the others; and
       it is posted to a webhook once, whatever comes of that.
    5. What was handed out as often as the user allows, without evidence, is not handed out again:
       it is dead.
    6. The last value of a topic, given to who has just subscribed, never becomes a dead letter:
       where another message would be dead, it is forgotten.
    7. A missing key is an illegal move; the store turns the table into its WHERE clause.
"""

from enum import StrEnum

from claude_peers.core.models import State


class Event(StrEnum):
    """What can happen to an accepted message."""

    LEASE = "lease"
    PUSH = "push"
    RETURN = "return"
    ADMIT = "admit"
    SEE = "see"
    ANSWER = "answer"
    EXPIRE = "expire"
    GIVE_UP = "give_up"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.LEASE): State.LEASED,
    (State.QUEUED, Event.PUSH): State.PUSHED,
    (State.QUEUED, Event.SEE): State.SEEN,
    (State.QUEUED, Event.ANSWER): State.ANSWERED,
    (State.QUEUED, Event.EXPIRE): State.DEAD,
    (State.QUEUED, Event.GIVE_UP): State.DEAD,
    (State.PUSHED, Event.PUSH): State.PUSHED,
    (State.PUSHED, Event.LEASE): State.LEASED,
    (State.PUSHED, Event.SEE): State.SEEN,
    (State.PUSHED, Event.ANSWER): State.ANSWERED,
    (State.PUSHED, Event.EXPIRE): State.DEAD,
    (State.PUSHED, Event.GIVE_UP): State.DEAD,
    (State.LEASED, Event.RETURN): State.QUEUED,
    (State.LEASED, Event.SEE): State.SEEN,
    (State.LEASED, Event.ANSWER): State.ANSWERED,
    (State.LEASED, Event.EXPIRE): State.DEAD,
    (State.LEASED, Event.GIVE_UP): State.DEAD,
    (State.HELD, Event.ADMIT): State.QUEUED,
    (State.HELD, Event.SEE): State.SEEN,
    (State.HELD, Event.ANSWER): State.ANSWERED,
    (State.HELD, Event.EXPIRE): State.DEAD,
    (State.SEEN, Event.ANSWER): State.ANSWERED,
}

DIRECT_TTL = 24 * 3600.0
"""Seconds a message to one peer is kept unread."""
TOPIC_TTL = 3600.0
"""Seconds a message to a topic or a scope is kept unread: it is news, and many have it."""
MOST_TTL = 7 * 24 * 3600.0
"""Seconds a sender may ask for."""
OWED = 600.0
"""Seconds after which the sender of a request is told that no answer has come."""
DELIVERIES = 20
"""Times a message is handed out unless the user wants another number; after that it is dead."""
MOST_DELIVERIES = 1000
"""The largest number the user may want."""
EXPIRED = "nobody read it in time"
"""Why a message is dead whose time was over."""
_HANDED_OUT, _UNREAD = "handed out ", " without a sign that it was read"


def given_up(deliveries: int) -> str:
    """Return why a message is dead that was handed out so many times."""
    return f"{_HANDED_OUT}{'once' if deliveries == 1 else f'{deliveries} times'}{_UNREAD}"


def posted_once(told: str) -> str:
    """Return why a message of quality 0 is dead whose one post failed; `told` is what came back."""
    return f"posted once, as its quality is 0: {told}"


def cause(reason: str) -> Event | None:
    """Return the event that ended a message, by why it is dead; None if that is no text of ours."""
    if reason == EXPIRED:
        return Event.EXPIRE
    gave_up = reason.startswith(_HANDED_OUT) and reason.endswith(_UNREAD)
    return Event.GIVE_UP if gave_up else None


def lifetime(wanted: float | None, usual: float = DIRECT_TTL) -> float:
    """Return the seconds a message is kept unread, as its sender asked for it."""
    return min(wanted, MOST_TTL) if wanted and wanted > 0 else usual


def patience(wanted: float | None, lives: float) -> float:
    """Return the seconds a request's sender waits for an answer before it is told of none."""
    return min(wanted if wanted and wanted > 0 else OWED, lives)


def proved_by(reply_to: str, sent_to: str) -> Event:
    """Return what a reply proves of the message it names.

    Args:
        reply_to: who sent that message.
        sent_to: who gets the reply; told to anybody else, it is read, and its sender still waits.
    """
    return Event.ANSWER if reply_to == sent_to else Event.SEE


def sources(event: Event) -> tuple[State, ...]:
    """Return the states from which `event` is legal."""
    return tuple(state for (state, what) in TRANSITIONS if what is event)


def target(event: Event) -> State:
    """Return the state `event` leads to; each event has exactly one."""
    return next(to for (_, what), to in TRANSITIONS.items() if what is event)
