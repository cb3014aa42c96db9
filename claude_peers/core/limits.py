"""Sizes and rates: everything that comes in is bounded."""

from dataclasses import dataclass

from claude_peers.core.errors import (
    HopLimitError,
    LoopGuardError,
    MailboxFullError,
    RateLimitedError,
    TextTooLongError,
)

TEXT = 256 * 1024
"""Bytes of one message's text."""
BODY = 1024 * 1024
"""Bytes of one request's body."""
PREVIEW = 16 * 1024
"""Characters of a text that is pushed whole; a longer one is pushed as a preview."""
SUMMARY = 500
NAME = 64
PATH = 1024
KEYS = 8
DEDUPE_KEY = 256
"""Characters of a dedupe key: a broadcast keeps one for each recipient."""
PAGE = 50
"""Messages handed out at a time."""
BACKLOG = 256
"""Unanswered requests on one live connection."""
SENDERS = 4096
"""Senders, and pairs of them, whose rate is remembered."""
HOPS = 20
"""Answers to answers: a conversation that is longer begins a new thread."""
TOPIC = 256
"""Characters of a topic or pattern."""
LEVELS = 16
"""Levels of one."""
SUBSCRIPTIONS = 64
"""Patterns of one peer."""
RETAINED = 256
"""Topics whose last value is kept."""
RETAINED_TEXT = 16 * 1024
"""Bytes of such a value: a peer that subscribes may be given many at once."""
RECIPIENTS_AS_ONE = 10
"""Recipients of a broadcast that count as one more message of its sender."""
NEARLY_FULL = 0.9
"""Share of a mailbox's limits above which its senders are warned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the user may lift.

    Attributes:
        per_minute: messages a sender may send in a minute; 0 lifts it.
        burst: how many of them at once.
        mailbox: unread messages per recipient; 0 lifts it.
        mailbox_bytes: their texts' bytes together.
        turns_per_minute: how often two peers may answer each other; lifted with `per_minute`.
        turns_burst: how many of these turns at once.
    """

    per_minute: int = 120
    burst: int = 60
    mailbox: int = 1000
    mailbox_bytes: int = 8 * 1024 * 1024
    turns_per_minute: int = 12
    turns_burst: int = 6


@dataclass(frozen=True, slots=True)
class Bucket:
    """An allowance: `tokens` left at `at` (seconds, monotonic)."""

    tokens: float
    at: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """Two peers that write to each other: who wrote last, and how many turns they have left."""

    last: str
    turns: Bucket


def cost(recipients: int, limits: Limits) -> int:
    """Return as how many messages a broadcast counts: one, and one for every ten it reaches.

    Never more than the burst, so that whoever has been quiet may reach everybody.
    """
    return max(1, min(1 + recipients // RECIPIENTS_AS_ONE, limits.burst))


def spend(bucket: Bucket | None, limits: Limits, *, now: float, count: int = 1) -> Bucket:
    """Take `count` messages off the allowance and return what is left.

    Raises:
        RateLimitedError: the allowance is used up; the bucket stays as it is.
    """
    if not limits.per_minute:
        return Bucket(float(limits.burst), now)
    left, wait = _take(bucket, limits.per_minute, limits.burst, now=now, count=count)
    if wait:
        raise RateLimitedError(limits.per_minute, wait)
    return left


def take_turn(exchange: Exchange | None, sender: str, limits: Limits, *, now: float) -> Exchange:
    """Count a message between two peers if it answers the other one's; one-way traffic is free.

    Raises:
        LoopGuardError: they answer each other faster than two agents with a task would.
    """
    if exchange is None:
        return Exchange(sender, Bucket(float(limits.turns_burst), now))
    if exchange.last == sender:
        return exchange
    left, wait = _take(exchange.turns, limits.turns_per_minute, limits.turns_burst, now=now)
    if wait:
        raise LoopGuardError(limits.turns_per_minute, wait)
    return Exchange(sender, left)


def _take(
    bucket: Bucket | None, per_minute: int, burst: int, *, now: float, count: int = 1
) -> tuple[Bucket, float]:
    """Return what is left after `count` are taken, and the seconds to wait if too few were left."""
    rate = per_minute / 60.0
    held = bucket or Bucket(float(burst), now)
    tokens = min(float(burst), held.tokens + (now - held.at) * rate)
    if tokens < count:
        return held, (count - tokens) / rate
    return Bucket(tokens - count, now), 0.0


def check_text(text: str) -> None:
    """Refuse a text over the limit.

    Raises:
        TextTooLongError: it has more than `TEXT` bytes in UTF-8.
    """
    if len(text) * 4 > TEXT and (size := len(text.encode(errors="replace"))) > TEXT:
        raise TextTooLongError(size, TEXT)


def check_mailbox(peer_id: str, limits: Limits, *, unread: int, size: int, adding: int) -> None:
    """Refuse one more message for a full mailbox.

    Raises:
        MailboxFullError: count or bytes would go over the limit.
    """
    if not limits.mailbox:
        return
    if unread + 1 > limits.mailbox or size + adding > limits.mailbox_bytes:
        raise MailboxFullError(peer_id, unread)


def next_hop(hops: int) -> int:
    """Return how far an answer is from the beginning of its thread.

    Raises:
        HopLimitError: further than agents should go by themselves.
    """
    if hops + 1 > HOPS:
        raise HopLimitError(HOPS)
    return hops + 1
