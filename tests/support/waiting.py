"""Waiting for something that only asking can show, under a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PAUSE = 0.005
"""Seconds between two questions."""


def eventually(probe: Callable[[], Found], *, timeout: float = 10, what: str = "") -> Found:
    """Return the first true answer of `probe`; fail when there is none in time."""
    end = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what or probe} did not come true within {timeout:g} s")
        time.sleep(PAUSE)
