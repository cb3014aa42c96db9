"""Time that did not pass for anybody: the machine slept, or its wall clock was set.

Two clocks are compared from one look to the next: the wall clock, which may be set, and one that
only goes forward, and goes on while the machine sleeps.
"""

from dataclasses import dataclass

SLEPT = 10.0
"""Seconds between two looks, a few of which are due in that time, after which we have slept."""
STEP = 60.0
"""Seconds the wall clock may gain or lose between two looks without having been set."""


@dataclass(frozen=True, slots=True)
class Look:
    """Both clocks at one moment: seconds since the epoch, and since some beginning."""

    wall: float
    monotonic: float


def slept(earlier: Look, later: Look) -> bool:
    """Whether nobody was served in between: whose silence that was cannot be told."""
    return later.monotonic - earlier.monotonic > SLEPT


def step(earlier: Look, later: Look) -> float:
    """Return the seconds by which the wall clock was set in between, 0 if it was not."""
    set_by = (later.wall - earlier.wall) - (later.monotonic - earlier.monotonic)
    return set_by if abs(set_by) > STEP else 0.0
