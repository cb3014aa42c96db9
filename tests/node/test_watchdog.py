"""A hanging event loop is noticed, a slow or stopped one is not."""

import threading

from claude_peers.node.watchdog import TICKS, Watchdog

BOUND = 10
TICK = 0.001


class Dog(Watchdog):
    """A watchdog whose clock is moved by hand."""

    def __init__(self) -> None:
        self.bites = 0
        super().__init__(self._count)
        self._stopped = self

    def wait(self, _tick: float) -> bool:
        """Stand in for the event that ends it: let one more tick pass, or end."""
        self.ticks -= 1
        if self.ticks in self.beats:
            self.beat()
        return self.ticks < 0

    def look(self, ticks: int, beats: tuple[int, ...] = ()) -> int:
        """Look so often, the loop beating before some of the last looks; return the bites."""
        self.ticks, self.beats = ticks, beats
        self._run()
        return self.bites

    def _count(self) -> None:
        self.bites += 1


def test_it_bites_after_several_looks_without_a_beat():
    assert Dog().look(TICKS) == 0
    assert Dog().look(TICKS + 1) == 1


def test_it_bites_once():
    assert Dog().look(10 * TICKS) == 1


def test_a_beat_in_time_calms_it():
    every = range(TICKS - 1, 9 * TICKS, TICKS)

    assert Dog().look(9 * TICKS, beats=tuple(every)) == 0
    assert Dog().look(9 * TICKS, beats=tuple(each for each in every if each != every[4])) == 1


def test_its_thread_notices_a_loop_that_hangs():
    bitten = threading.Event()
    dog = Watchdog(bitten.set, tick=TICK)

    dog.start()

    assert bitten.wait(BOUND)


def test_its_thread_ends_when_it_is_no_longer_needed():
    bitten = threading.Event()
    dog = Watchdog(bitten.set, tick=BOUND)
    dog.start()

    dog.stop()
    dog._thread.join(BOUND)

    assert not dog._thread.is_alive()
    assert not bitten.is_set()
