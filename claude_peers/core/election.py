"""The life of one node: candidate, follower or leader, as a table.

A node starts as a candidate. It follows whoever answers on the port with proof, leads once it
holds the lock, the database and the port, and becomes a candidate again whenever the connection
to its leader breaks. Lock, port and epoch guard together: each alone has a hole (a lock file can
be deleted, a port can be owned by a stranger, an epoch is only checked when writing).
"""

from enum import StrEnum

from claude_peers.core.errors import IllegalTransitionError

STANDBY_DELAY = (0.0, 0.0)
"""Seconds (fixed, jitter) the named standby waits before it campaigns."""
OTHERS_DELAY = (0.030, 0.020)
"""The same for everybody else, who reconnect meanwhile."""
FIRST_LOOK = (0.020, 0.050)
"""The same for everybody else whose agent waits for nothing, before the first look at the port.

Many sessions that all look at once take the processor from the standby, and from whoever waits.
"""
RECONNECT_FIRST = 0.002
RECONNECT_MOST = 0.250
"""Seconds between two attempts to reach a broker: doubling from the first to the most."""


class Role(StrEnum):
    """What a node is doing."""

    CANDIDATE = "candidate"
    FOLLOWER = "follower"
    LEADER = "leader"
    STOPPED = "stopped"


class Event(StrEnum):
    """What a node can learn."""

    BROKER_ANSWERED = "broker answered"
    BROKER_LOST = "broker lost"
    LOCK_AND_PORT_WON = "lock and port won"
    SUCCEEDED = "succeeded by another"
    STOP = "stop"


TRANSITIONS: dict[tuple[Role, Event], Role] = {
    (Role.CANDIDATE, Event.BROKER_ANSWERED): Role.FOLLOWER,
    (Role.CANDIDATE, Event.LOCK_AND_PORT_WON): Role.LEADER,
    (Role.CANDIDATE, Event.STOP): Role.STOPPED,
    (Role.FOLLOWER, Event.BROKER_LOST): Role.CANDIDATE,
    (Role.FOLLOWER, Event.STOP): Role.STOPPED,
    (Role.LEADER, Event.SUCCEEDED): Role.CANDIDATE,
    (Role.LEADER, Event.STOP): Role.STOPPED,
}


def after(role: Role, event: Event) -> Role:
    """Return the role that follows; an impossible pair is a bug."""
    try:
        return TRANSITIONS[role, event]
    except KeyError:
        raise IllegalTransitionError(f"{event} as {role}") from None


def campaign_delay(*, standby: bool, jitter: float) -> float:
    """Return the seconds to wait before campaigning; `jitter` is drawn from 0 to 1."""
    fixed, spread = STANDBY_DELAY if standby else OTHERS_DELAY
    return fixed + spread * jitter


def first_look_delay(jitter: float) -> float:
    """Return the seconds an idle follower leaves to others; `jitter` is drawn from 0 to 1."""
    fixed, spread = FIRST_LOOK
    return fixed + spread * jitter


def reconnect_delay(attempt: int) -> float:
    """Return the seconds before reconnection attempt `attempt`, counted from 0."""
    return min(RECONNECT_MOST, RECONNECT_FIRST * 2.0 ** min(attempt, 16))
