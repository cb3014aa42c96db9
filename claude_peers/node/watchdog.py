"""Notices that the event loop is stuck, from a thread that does not depend on it.

A stopped process (SIGSTOP) stops both, and both go on together: only several ticks of the
watchdog in a row without a beat of the loop mean that the loop alone hangs.
"""

import threading
from collections.abc import Callable

TICK = 5.0
"""Seconds between two looks."""
TICKS = 2
"""Looks without a beat after which the loop counts as stuck."""


class Watchdog:
    """Calls `bite` on its own thread, once, when `beat` is no longer called."""

    def __init__(self, bite: Callable[[], None], *, tick: float = TICK) -> None:
        self._bite = bite
        self._tick = tick
        self._stopped = threading.Event()
        self._missed = 0
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def beat(self) -> None:
        """Show that the loop runs."""
        self._missed = 0

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._tick):
            self._missed += 1
            if self._missed > TICKS:
                self._bite()
                return
