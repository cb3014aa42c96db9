"""How often each source may send: a bucket for each, as many sources as are worth remembering."""

from claude_peers.core.limits import SENDERS, Bucket, Limits, spend


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

    def spend(self, source: str, *, now: float) -> None:
        """Take one message off a source's allowance.

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
        self._buckets[source] = spend(bucket, self._limits, now=now)
