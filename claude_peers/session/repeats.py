"""Pushes that are repeated, because the agent has not stirred since and so has not seen them.

Only the client's own record can tell that: an agent that has been idle since before the push has
had no turn in which it could have been shown. Whatever else is the case ends the repeating.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from claude_peers.session.routes.ways import Ways
from claude_peers.tools.member import Item, Member

AGAIN = (30.0, 120.0, 600.0)
"""Seconds from a push to its first repetition, from that to the second, and to the third."""


class Repeats:
    """The repetitions of one session's pushes.

    Args:
        member: the session's mailbox.
        ways: what the agent is doing.
        push: pushes a message once more.
    """

    def __init__(self, member: Member, ways: Ways, push: Callable[[Item], None]) -> None:
        self._member = member
        self._ways = ways
        self._push = push
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def begin(self, ids: Iterable[int]) -> None:
        """Take note of messages that have just been pushed."""
        pushed_at = time.time()  # noqa: TID251 - what the client's record is written in
        for number in ids:
            if (timer := self._timers.pop(number, None)) is not None:
                timer.cancel()  # of an earlier push by another route
            self._later(number, 0, pushed_at)

    def stop(self) -> None:
        """Repeat nothing of what was pushed so far."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _later(self, number: int, times: int, pushed_at: float) -> None:
        if times < len(AGAIN):
            self._timers[number] = asyncio.get_running_loop().call_later(
                AGAIN[times], self._due, number, times, pushed_at
            )

    def _due(self, number: int, times: int, pushed_at: float) -> None:
        del self._timers[number]
        member, since = self._member, self._ways.activity.idle_since
        member.expire()
        item = member.items.get(number)
        if item is None or number not in member.unread or number in member.in_hand:
            return
        if since is None or since > pushed_at:  # it has had a turn since, or nobody can tell
            return
        message, sender = item
        offered = int(message.get("redelivered") or 0) + times + 1
        self._push((message | {"redelivered": offered}, sender))
        self._later(number, times + 1, pushed_at)
