"""Waiting, inside an event loop, for what only asking can show."""

from collections.abc import Callable

import anyio
import anyio.lowlevel


async def until(come_true: Callable[[], object], *, bound: float = 15) -> None:
    """Let the loop run until something has come true; fail when it does not in time."""
    with anyio.fail_after(bound):
        while not come_true():
            await anyio.lowlevel.checkpoint()
