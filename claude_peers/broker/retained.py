"""The last value of each topic that was published with `retain`, for who subscribes later."""

from collections.abc import Collection, Iterable, Iterator

from claude_peers.core.delivery import TOPIC_TTL
from claude_peers.core.errors import NotPossibleError, RetainedTooLongError, TooManyTopicsError
from claude_peers.core.limits import RETAINED, RETAINED_TEXT
from claude_peers.core.models import Draft, Peer, Retained
from claude_peers.core.topics import matches
from claude_peers.wire.topics import BroadcastRequest


class LastValues:
    """Last values by topic, as the store has them."""

    def __init__(self) -> None:
        self._values: dict[str, Retained] = {}

    def load(self, values: Iterable[Retained]) -> None:
        """Take what is stored."""
        self._values = {value.topic: value for value in values}

    def check(self, request: BroadcastRequest) -> None:
        """Refuse what cannot be kept.

        Raises:
            NotPossibleError: it is not for a topic.
            RetainedTooLongError: its text is too long.
            TooManyTopicsError: too many topics have a last value.
        """
        if not request.retain:
            return
        if request.topic is None:
            raise NotPossibleError(
                "Only a topic has a last value", "Name a topic, or leave retain."
            )
        size = len(request.text.encode(errors="replace"))
        if size > RETAINED_TEXT:
            raise RetainedTooLongError(size, RETAINED_TEXT)
        if request.text and request.topic not in self._values and len(self._values) >= RETAINED:
            raise TooManyTopicsError(
                f"{RETAINED} topics have a last value that is kept",
                "Publish without retain, or end another one with an empty text and retain.",
            )

    def get(self, topic: str) -> Retained | None:
        """Return the value of a topic."""
        return self._values.get(topic)

    def put(self, value: Retained) -> None:
        """Replace the value of a topic; an empty text ends it."""
        self._values.pop(value.topic, None)
        if value.text:
            self._values[value.topic] = value

    def over(self, now: float) -> list[Retained]:
        """Return the values whose time is over."""
        return [value for value in self._values.values() if _is_over(value, now)]

    def new_to(
        self, peer: Peer, pattern: str, before: Collection[str], *, now: float
    ) -> Iterator[Draft]:
        """Yield what a peer gets that subscribes to a pattern, and had others before.

        A topic that one of those matches is not new to it: it has had that value, as a copy or
        for its earlier pattern.
        """
        for value in self._values.values():
            known = any(matches(each, value.topic) for each in before)
            if matches(pattern, value.topic) and not known and not _is_over(value, now):
                yield _given(value, peer, now)


def _given(value: Retained, peer: Peer, now: float) -> Draft:
    ends = now + TOPIC_TTL
    return Draft(
        from_id=value.from_id,
        to_id=peer.id,
        text=value.text,
        sent_at=value.sent_at,
        expires_at=ends if value.expires_at is None else min(ends, value.expires_at),
        verified=value.verified,
        held=value.from_id in peer.muted,
        topic=value.topic,
        retained=True,
        qos=value.qos,
    )


def _is_over(value: Retained, now: float) -> bool:
    return value.expires_at is not None and value.expires_at <= now
