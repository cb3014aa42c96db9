"""What becomes of messages that reach a session: which route takes them, and what proves it.

Every message takes one counting route at a time, the first that is available:

    rewake, inbox   a text handed to the client, which starts a turn with it. The client's hook
                    then shows us the turn's text: our mark in it is the receipt.
    channel         proven by the client's command line; it never tells what became of it.
    hook            the client asks at moments of a turn; the next call of ours proves that it
                    went on past the answer.
    piggyback       whole texts in the result of whatever tool the agent calls next.

Only the last two and `check_messages` prove themselves. What was pushed and not proven stays
unread: it is pushed again while the agent is known to sit idle (`session.repeats`), and
`check_messages` shows it. What the agent waits for in a call is shown by that call alone.

On a channel that is not proven goes a courtesy copy, which counts for nothing.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from claude_peers.session.repeats import Repeats
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
RETRY = (0.1, 0.2, 0.4, 0.8)
"""Seconds between looks whether a route has become available; then it is looked with each beat."""
RECEIPT = 2.0
"""Seconds for a receipt; without one the next route gets the message, if the agent is idle."""

Write = Callable[[bytes, Callable[[bool], None]], None]
Report = Callable[[str, dict[str, Any]], None]
"""Tells the broker something, in the background."""


@dataclass(slots=True)
class _Push:
    """Messages that were pushed together; a receipt counts however late it comes."""

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
        self._notified: set[int] = set()
        self._failed: dict[int, set[str]] = {}
        self._repeats = Repeats(member, ways, self._again)
        self._promised = False
        self._delivering = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._looks = 0

    def arrive(self, message: dict[str, Any], sender: dict[str, Any] | None) -> None:
        """Take a message from the broker."""
        if not self._member.arrive(message, sender):
            return
        if self._member.waiting and (self.ways.routes or self.ways.channel):
            return  # the wait takes it; what it does not want goes with the next beat
        if self.ways.routes:
            self._looks = 0
            self.deliver()
        else:
            self._notify([(message, sender)])

    def deliver(self) -> None:
        """Push what waits, by the first route that is available."""
        if not self._delivering:
            self._delivering = True
            self._start(self._deliver())

    def beat(self) -> None:
        """Look again whether a route has become available, if mail waits for one."""
        self._tidy()
        if (self.ways.routes or self.ways.channel) and self._member.pending():
            self.deliver()

    def receipts(self, text: str) -> None:
        """Look for our marks in a turn's text: what was pushed with them has been seen."""
        self._promised = self._promised or bool(text)  # the user may have left the text out
        for mark in [mark for mark in self._pushes if mark in text]:
            push = self._pushes.pop(mark)
            self._seen(push.whole, f"{push.route} receipt")

    def acted(self) -> None:
        """Take note that the agent called one of our tools: it is awake, no push is repeated."""
        self._repeats.stop()

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
        self._repeats.stop()
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        for route in self.ways.routes:
            route.close()

    # Routes that take whole texts

    async def _deliver(self) -> None:
        try:
            for route in self.ways.routes:
                while (items := self._for(route)) and route.available:
                    if not await self._push(route, items):
                        break
        finally:
            self._delivering = False
        waiting = self._member.pending()
        self._notify(waiting)
        if self.ways.routes and waiting and self._looks < len(RETRY):
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

    async def _push(self, route: Route, items: list[Item], *, again: bool = False) -> bool:
        member = self._member
        mark = f"[receipt {os.urandom(4).hex()}]"
        text, whole = envelope.batch(items, mark=mark, limit=PUSHED)
        ids = whole or (items[0][0]["id"],)
        self._pushes[mark] = _Push(route.name, whole, ids)  # the receipt may be quick
        on_way = set(ids) - member.offered
        member.offered.update(on_way)
        try:
            handed_over = await route.push(text)
        finally:
            member.offered.difference_update(on_way)
        if not handed_over:
            self._pushes.pop(mark, None)
            return False
        # Who asked meanwhile has been shown it; and of a preview the rest is still to be shown.
        left = tuple(number for number in ids if number in member.unread)
        (member.pushed if whole else member.offered).update(left)
        self._pushed(left, route.name, again=again)
        if self._promised:
            self._later(RECEIPT, lambda: self._unreceipted(mark))
        return True

    def _unreceipted(self, mark: str) -> None:
        push, member = self._pushes.get(mark), self._member
        if push is None or member.unread.isdisjoint(push.ids):
            return
        if self.ways.activity.state == "busy":  # it gets the text when it has time
            self._later(RECEIPT, lambda: self._unreceipted(mark))
        elif self.ways.activity.state == "idle":
            for number in push.ids:
                self._failed.setdefault(number, set()).add(push.route)
            member.pushed.difference_update(push.ids)
            member.offered.difference_update(push.ids)
            self.deliver()

    # The channel

    def _notify(self, items: list[Item]) -> None:
        """Write channel notifications: a push where that is proven, else a courtesy, once."""
        ways = self.ways
        if not (ways.channel or (ways.courtesy and not ways.hooks)):
            return
        for message, sender in items:
            number = message["id"]
            if number not in self._notified:
                self._notified.add(number)
                line = dumps(channel.notification(message, sender))
                self._write(line, partial(self._written, number))

    def _written(self, number: int, whole: bool) -> None:  # noqa: FBT001 - the callback's
        if not self.ways.channel:
            return
        if not whole:  # too much waits to be written; the next beat tries again
            self._notified.discard(number)
        elif number in self._member.unread:
            self._member.pushed.add(number)
            self._pushed((number,), "channel")

    # Evidence

    def _pushed(self, ids: tuple[int, ...], via: str, *, again: bool = False) -> None:
        if not ids:
            return
        self._tell("/pushed-messages", ids, f"{via} again" if again else via)
        if not again:
            self._repeats.begin(ids)

    def _seen(self, ids: tuple[int, ...], via: str) -> None:
        known = tuple(number for number in ids if number in self._member.unread)
        if known:
            self._member.forget(known)
            self._tell("/ack-messages", known, via)

    def _again(self, item: Item) -> None:
        route = next((each for each in self.ways.routes if each.available), None)
        if route is not None:
            self._start(self._push(route, [item], again=True))
        elif self.ways.channel:
            line, ids = dumps(channel.notification(*item)), (item[0]["id"],)
            self._write(line, partial(self._repeated, ids))

    def _repeated(self, ids: tuple[int, ...], whole: bool) -> None:  # noqa: FBT001 - the callback's
        if whole:
            self._pushed(ids, "channel", again=True)

    def _tell(self, operation: str, ids: tuple[int, ...], via: str) -> None:
        self._report(operation, {**self._member.me, "message_ids": list(ids), "via": via})

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            what()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a delivery failed: %s", error)

    def _tidy(self) -> None:
        """Forget what was kept about messages that are unread no longer."""
        unread = self._member.unread
        self._notified &= unread
        self._failed = {number: by for number, by in self._failed.items() if number in unread}
        self._pushes = {
            mark: push for mark, push in self._pushes.items() if not unread.isdisjoint(push.ids)
        }
