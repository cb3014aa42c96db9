"""What becomes of messages that reach a session: which route takes them, and what proves it.

Every message takes one counting route at a time, the first that is available:

    rewake, inbox   a text handed to the client, which starts a turn with it. The client's hook
                    then shows us the turn's text: our mark in it is the receipt.
    channel         proven by the client's command line; it never tells what became of it.
    hook            the client asks at moments of a turn; the next call of ours proves that it
                    went on past the answer.
    piggyback       whole texts in the result of whatever tool the agent calls next.

Only the last two and `check_messages` prove themselves. What was pushed and not proven stays
unread: it is pushed again while the agent is known to sit idle, and `check_messages` shows it.
On a channel that is not proven goes a courtesy copy, which counts for nothing.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from claude_peers.session.routes.route import Route
from claude_peers.session.routes.ways import Ways
from claude_peers.tools.member import Item, Member
from claude_peers.wire import channel, envelope
from claude_peers.wire.codec import dumps

log = logging.getLogger(__name__)

PUSHED = 28_000
"""Characters of one push; Claude Code takes 30,000 whole."""
PIGGYBACK = 8_192
"""Characters of messages in another tool's result."""
AGAIN = (30.0, 120.0, 600.0)
"""Seconds after which a push is repeated to an agent that sat idle ever since."""
RETRY = (0.1, 0.2, 0.4, 0.8)
"""Seconds between looks whether a route has become available; then it is looked with each beat."""
RECEIPT = 2.0
"""Seconds for a receipt; without one the next route gets the message, if the agent is idle."""

Write = Callable[[bytes, Callable[[bool], None]], None]
Report = Callable[[str, dict[str, Any]], None]
"""Tells the broker something, in the background."""


@dataclass(slots=True)
class _Push:
    """Messages that were pushed together and wait for their receipt."""

    route: str
    whole: tuple[int, ...]
    ids: tuple[int, ...]


class Inbound:
    """Passes messages on to the agent.

    Args:
        member: the session's mailbox.
        ways: how the agent can be reached.
        write: writes a line to the client; it may be dropped.
        report: tells the broker.
    """

    def __init__(self, member: Member, ways: Ways, *, write: Write, report: Report) -> None:
        self.ways = ways
        self._member = member
        self._write = write
        self._report = report
        self._pushes: dict[str, _Push] = {}
        self._copied: set[int] = set()
        self._failed: dict[int, set[str]] = {}
        self._repeats: dict[int, asyncio.TimerHandle] = {}
        self._delivering: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._looks = 0

    def arrive(self, message: dict[str, Any], sender: dict[str, Any] | None) -> None:
        """Take a message from the broker."""
        if not self._member.arrive(message, sender):
            return
        if self.ways.routes:
            self._looks = 0
            self.deliver()
        else:
            self._notify([(message, sender)])

    def deliver(self) -> None:
        """Push what waits, by the first route that is available."""
        if self._delivering is None or self._delivering.done():
            self._delivering = asyncio.ensure_future(self._deliver())
            self._delivering.add_done_callback(_logged)

    def beat(self) -> None:
        """Look again whether a route has become available, if mail waits for one."""
        if self.ways.routes and self._member.pending():
            self.deliver()

    def receipts(self, text: str) -> None:
        """Look for our marks in a turn's text: what was pushed with them has been seen."""
        for mark in [mark for mark in self._pushes if mark in text]:
            push = self._pushes.pop(mark)
            self._seen(push.whole, f"{push.route} receipt")

    def acted(self) -> None:
        """Take note that the agent called one of our tools: it is awake, no push is repeated."""
        for timer in self._repeats.values():
            timer.cancel()
        self._repeats.clear()

    def piggyback(self) -> tuple[str, tuple[int, ...]]:
        """Return what to add to a tool's result, and the messages that are in it whole."""
        member = self._member
        text, ids = envelope.batch(member.pending(), mark="", limit=PIGGYBACK)
        if ids:
            member.in_hand.update(ids)
            return f"\n\n{text}", ids
        count = len(member.unread - member.in_hand)
        if not count:
            return "", ()
        return f"\n\n{count} unread message(s) from other agents: call check_messages.", ()

    def close(self) -> None:
        """Push nothing any more."""
        for timer in (*self._timers, *self._repeats.values()):
            timer.cancel()
        if self._delivering is not None:
            self._delivering.cancel()
        for route in self.ways.routes:
            route.close()

    # Routes that take whole texts

    async def _deliver(self) -> None:
        for route in self.ways.routes:
            while (items := self._for(route)) and route.available:
                if not await self._push(route, items):
                    break
        waiting = self._member.pending()
        self._notify([item for item in waiting if item[0]["id"] not in self._copied])
        if waiting and self._looks < len(RETRY):
            # No route is available: the client's waiter is armed again when its turn ends.
            self._later(RETRY[self._looks], self.deliver)
            self._looks += 1

    def _for(self, route: Route) -> list[Item]:
        failed = self._failed
        return [
            item
            for item in self._member.pending()
            if route.name not in failed.get(item[0]["id"], ())
        ]

    async def _push(self, route: Route, items: list[Item]) -> bool:
        mark = f"[receipt {os.urandom(4).hex()}]"
        text, whole = envelope.batch(items, mark=mark, limit=PUSHED)
        ids = whole or (items[0][0]["id"],)
        self._member.pushed.update(ids)
        if not await route.push(text):
            self._member.pushed.difference_update(ids)
            return False
        self._pushes[mark] = _Push(route.name, whole, ids)
        self._pushed(ids, route.name)
        if self.ways.hooks:
            self._later(RECEIPT, lambda: self._unreceipted(mark))
        return True

    def _unreceipted(self, mark: str) -> None:
        push = self._pushes.get(mark)
        if push is None:
            return
        if self.ways.activity.state == "busy":  # it gets the text when it has time
            self._later(RECEIPT, lambda: self._unreceipted(mark))
        elif self.ways.activity.state == "idle":
            del self._pushes[mark]
            for number in push.ids:
                self._failed.setdefault(number, set()).add(push.route)
            self._member.pushed.difference_update(push.ids)
            self.deliver()

    # The channel

    def _notify(self, items: list[Item]) -> None:
        """Write channel notifications: a push where that is proven, else a courtesy, once."""
        ways = self.ways
        if not (ways.channel or (ways.courtesy and not ways.hooks)):
            return
        for message, sender in items:
            number = message["id"]
            if not ways.channel:
                self._copied.add(number)
            line = dumps(channel.notification(message, sender))
            self._write(line, partial(self._written, number))

    def _written(self, number: int, whole: bool) -> None:  # noqa: FBT001 - the callback's
        if whole and self.ways.channel and number in self._member.unread:
            self._member.pushed.add(number)
            self._pushed((number,), "channel")

    # Evidence

    def _pushed(self, ids: tuple[int, ...], via: str) -> None:
        self._tell("/pushed-messages", ids, via)
        for number in ids:
            self._repeat(number, 0)

    def _seen(self, ids: tuple[int, ...], via: str) -> None:
        known = tuple(number for number in ids if number in self._member.unread)
        if known:
            self._member.forget(known)
            self._tell("/ack-messages", known, via)

    def _repeat(self, number: int, times: int) -> None:
        if times == len(AGAIN):
            return
        pushed_at = time.time()  # noqa: TID251 - what the client's record is written in
        timer = asyncio.get_running_loop().call_later(
            AGAIN[times], self._push_again, number, times, pushed_at
        )
        self._repeats[number] = timer

    def _push_again(self, number: int, times: int, pushed_at: float) -> None:
        """Repeat a push whose agent has been idle ever since, and so has not seen it."""
        self._repeats.pop(number, None)
        member, since = self._member, self.ways.activity.idle_since
        item = member.items.get(number)
        if item is None or number not in member.unread or number in member.in_hand:
            return
        if since is not None and since <= pushed_at:
            message, sender = item
            again = message | {"redelivered": int(message.get("redelivered", 0)) + times + 1}
            self._again((again, sender))
        self._repeat(number, times + 1)

    def _again(self, item: Item) -> None:
        number = item[0]["id"]
        route = next((each for each in self.ways.routes if each.available), None)
        if route is not None:
            task = asyncio.ensure_future(self._again_by(route, item))
            task.add_done_callback(_logged)
        elif self.ways.channel:
            line = dumps(channel.notification(*item))
            self._write(line, lambda whole: self._repeated((number,), "channel", whole=whole))

    async def _again_by(self, route: Route, item: Item) -> None:
        mark = f"[receipt {os.urandom(4).hex()}]"
        text, whole = envelope.batch([item], mark=mark, limit=PUSHED)
        ids = (item[0]["id"],)
        if await route.push(text):
            self._pushes[mark] = _Push(route.name, whole, ids)
            self._repeated(ids, route.name, whole=True)

    def _repeated(self, ids: tuple[int, ...], via: str, *, whole: bool) -> None:
        if whole:
            self._tell("/pushed-messages", ids, f"{via} again")

    def _tell(self, operation: str, ids: tuple[int, ...], via: str) -> None:
        self._report(operation, {**self._member.me, "message_ids": list(ids), "via": via})

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            what()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)


def _logged(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a delivery failed: %s", error)
