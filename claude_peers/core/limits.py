"""Sizes and rates: everything that comes in is bounded."""

from dataclasses import dataclass

from claude_peers.core.errors import MailboxFullError, RateLimitedError, TextTooLongError

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
PAGE = 50
"""Messages handed out at a time."""
BACKLOG = 256
"""Unanswered requests on one live connection."""
SENDERS = 4096
"""Senders whose rate is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the user may lift.

    Attributes:
        per_minute: messages a sender may send in a minute; 0 lifts it.
        burst: how many of them at once.
        mailbox: unread messages per recipient; 0 lifts it.
        mailbox_bytes: their texts' bytes together.
    """

    per_minute: int = 120
    burst: int = 60
    mailbox: int = 1000
    mailbox_bytes: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """A sender's allowance: `tokens` left at `at` (seconds, monotonic)."""

    tokens: float
    at: float


def spend(bucket: Bucket | None, limits: Limits, *, now: float) -> Bucket:
    """Take one message off the allowance and return what is left.

    Raises:
        RateLimitedError: the allowance is used up; the bucket stays as it is.
    """
    if not limits.per_minute:
        return Bucket(float(limits.burst), now)
    rate = limits.per_minute / 60.0
    held = bucket or Bucket(float(limits.burst), now)
    tokens = min(float(limits.burst), held.tokens + (now - held.at) * rate)
    if tokens < 1.0:
        raise RateLimitedError(limits.per_minute, (1.0 - tokens) / rate)
    return Bucket(tokens - 1.0, now)


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
