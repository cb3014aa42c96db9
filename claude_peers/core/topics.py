"""Topics and the patterns that match them, as MQTT 5.0 section 4.7 has it.

A topic is levels between slashes; a level may be empty, and `/a` is another topic than `a`. In a
pattern `+` stands for one level, also an empty one, and `#`, which comes last, for the level before
it and everything below. A topic that begins with `$` is matched by no pattern that begins with a
wildcard. Ours on top: topics are bounded, and none begins with `@`, which addresses a scope.
"""

from collections.abc import Iterator

from claude_peers.core.errors import NotPossibleError
from claude_peers.core.limits import LEVELS, NAME, TOPIC
from claude_peers.core.text import one_line

ONE, REST = "+", "#"


def check_topic(topic: str) -> None:
    """Refuse what cannot be published to.

    Raises:
        NotPossibleError: empty, too long or deep, with control characters, a wildcard, or an `@`
            in front.
    """
    _check(topic, "topic")
    if ONE in topic or REST in topic:
        raise _wrong(topic, "topic", "Wildcards are for subscribe; name one topic.")


def passed_on(topic: str | None, *, by_peer: bool) -> str | None:
    """Return the topic of a message from another broker; a peer of this one passes nothing on.

    Raises:
        NotPossibleError: it is by a peer, or no topic to publish to.
    """
    if topic is None:
        return None
    if by_peer:
        raise NotPossibleError(
            "A message to one peer has no topic", "Leave `topic`, or publish to it with /broadcast."
        )
    check_topic(topic)
    return topic


def check_pattern(pattern: str) -> None:
    """Refuse what cannot be subscribed to.

    Raises:
        NotPossibleError: as for a topic, or a wildcard that is not a level of its own, or `#`
            before the end.
    """
    _check(pattern, "pattern")
    levels = pattern.split("/")
    for level in levels:
        if len(level) > 1 and (ONE in level or REST in level):
            raise _wrong(pattern, "pattern", "`+` and `#` stand for whole levels, as in a/+/b.")
    if REST in levels[:-1]:
        raise _wrong(pattern, "pattern", "`#` comes last, as in a/#.")


def matches(pattern: str, topic: str) -> bool:
    """Whether a valid pattern matches a valid topic."""
    if topic.startswith("$") and pattern[:1] in (ONE, REST):
        return False
    levels, given = pattern.split("/"), topic.split("/")
    if levels[-1] == REST:
        levels.pop()
        given = given[: len(levels)]
    return len(levels) == len(given) and all(
        level in (ONE, each) for level, each in zip(levels, given, strict=True)
    )


def example(pattern: str) -> str:
    """Return a topic that a valid pattern matches."""
    levels = ["example" if each in (ONE, REST) else each for each in pattern.split("/")]
    return "/".join(levels)


class Subscriptions:
    """Who has subscribed to what; most patterns name one topic, and cost one look-up."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, dict[str, None]] = {}
        self._wild: dict[str, None] = {}
        self._of: dict[str, dict[str, None]] = {}

    def of(self, peer_id: str) -> tuple[str, ...]:
        """Return a peer's patterns, in the order in which it subscribed."""
        return tuple(self._of.get(peer_id, ()))

    def peers(self) -> tuple[str, ...]:
        """Return who has subscribed to anything."""
        return tuple(self._of)

    def add(self, peer_id: str, pattern: str) -> bool:
        """Note a subscription; False if it was there."""
        if pattern in self._of.get(peer_id, ()):
            return False
        self._of.setdefault(peer_id, {})[pattern] = None
        self._by_pattern.setdefault(pattern, {})[peer_id] = None
        if ONE in pattern or REST in pattern:
            self._wild[pattern] = None
        return True

    def discard(self, peer_id: str, pattern: str) -> bool:
        """Forget a subscription; False if there was none."""
        if pattern not in self._of.get(peer_id, ()):
            return False
        for index, key, value in (
            (self._of, peer_id, pattern),
            (self._by_pattern, pattern, peer_id),
        ):
            del index[key][value]
            if not index[key]:
                del index[key]
        if pattern not in self._by_pattern:
            self._wild.pop(pattern, None)
        return True

    def to(self, topic: str) -> Iterator[str]:
        """Yield each peer that has a pattern for a topic, once however many match."""
        found = dict(self._by_pattern.get(topic, {}))
        for pattern in self._wild:
            if matches(pattern, topic):
                found |= self._by_pattern[pattern]
        yield from found


def _check(text: str, kind: str) -> None:
    if not text:
        raise NotPossibleError(f"The {kind} is empty", "Name one, such as build/status.")
    if len(text) > TOPIC or text.count("/") >= LEVELS:
        raise _wrong(text, kind, f"It may have {TOPIC} characters and {LEVELS} levels.")
    if not text.isprintable():
        raise _wrong(text, kind, "Use printable characters only.")
    if text.startswith("@"):
        raise _wrong(
            text, kind, "`@` addresses a scope (@machine, @repo, @dir, @name), for broadcast only."
        )


def _wrong(text: str, kind: str, remedy: str) -> NotPossibleError:
    return NotPossibleError(f"{one_line(text, NAME)!r} is no {kind}", remedy)
