"""What a broker learns of its clocks, so that neither sleep nor a set clock ends anything."""

from claude_peers.broker.ports import Clock
from claude_peers.core import lapse
from claude_peers.core.delivery import MOST_TTL


class Lapses:
    """The lapses of one broker; without rounds there are none.

    Args:
        clock: what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: lapse.Look | None = None
        self._steps: list[tuple[float, float]] = []

    def begin(self) -> None:
        """Look at the clocks for the first time; once is enough."""
        self._last = self._last or self._look()

    def slept(self) -> bool:
        """Look at the clocks; whether the broker slept since it last did."""
        earlier, now = self._last, self._look()
        if earlier is None:
            return False
        self._last = now
        if by := lapse.step(earlier, now):
            self._steps.append((now.monotonic, by))
        return lapse.slept(earlier, now)

    def wall(self) -> float:
        """Return the time by which things expire: that of the wall clock had nobody set it ahead.

        A step counts for as long as there may be a message from before it. Where the clock was
        set back, things only expire later.
        """
        now = self._look()
        self._steps = [each for each in self._steps if now.monotonic - each[0] <= MOST_TTL]
        return now.wall - max(0.0, sum(by for _, by in self._steps))

    def _look(self) -> lapse.Look:
        return lapse.Look(self._clock.wall(), self._clock.monotonic())
