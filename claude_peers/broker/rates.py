"""How often sources may send, and pairs answer each other, as far as they are remembered."""

from claude_peers.core.limits import SENDERS, Bucket, Exchange, Limits, spend, take_turn


class Rates:
    """The allowances of all sources; whoever has not sent for longest is forgotten first.

    Args:
        limits: what one source may do.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[str, Bucket] = {}

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._buckets)

    def spend(self, source: str, *, now: float, count: int = 1) -> None:
        """Take `count` messages off a source's allowance.

        Raises:
            RateLimitedError: it is used up.
        """
        if not self._limits.per_minute:
            return
        # A source that is refused keeps its place: who sends too much is not to be forgotten.
        bucket = self._buckets.pop(source, None) or Bucket(float(self._limits.burst), now)
        self._buckets[source] = bucket
        if len(self._buckets) > SENDERS:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[source] = spend(bucket, self._limits, now=now, count=count)


class Exchanges:
    """The turns of pairs of peers; the pair that has been quiet for longest is forgotten first.

    Args:
        limits: how fast two peers may answer each other.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pairs: dict[frozenset[str], Exchange] = {}

    def __len__(self) -> int:
        """How many pairs are remembered."""
        return len(self._pairs)

    def take_turn(self, sender: str, recipient: str, *, now: float) -> None:
        """Count a message if it answers the other side.

        Raises:
            LoopGuardError: the two answer each other too fast.
        """
        if not self._limits.per_minute or sender == recipient:
            return
        pair = frozenset((sender, recipient))
        before = self._pairs.pop(pair, None)
        if before is not None:
            self._pairs[pair] = before  # a pair that is refused keeps its place
        self._pairs[pair] = take_turn(before, sender, self._limits, now=now)
        if len(self._pairs) > SENDERS:
            del self._pairs[next(iter(self._pairs))]
