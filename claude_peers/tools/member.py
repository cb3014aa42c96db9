"""One session's peer as its tools see it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from claude_peers.client.client import Client, key
from claude_peers.core.limits import PAGE
from claude_peers.tools.repeats import Repeats

REMEMBERED = 4096
"""Messages a session remembers, so that none is pushed twice."""
AT_HAND = 1024 * 1024
"""Characters of unread texts that a session keeps, to show them without asking the broker."""

Item = tuple[dict[str, Any], dict[str, Any] | None]
"""A message and its sender, as `wire.records` shows them."""


@dataclass(frozen=True, slots=True)
class Call:
    """The call under way.

    Attributes:
        tool_use: the client's own id of it, "" if it gave none.
        sub_agent: whether a sub-agent made it, which must not take the main agent's mail.
    """

    tool_use: str = ""
    sub_agent: bool = False


CALL: ContextVar[Call] = ContextVar("call", default=Call())  # noqa: B039 - it cannot be changed


class Hooks:
    """What the agent's client tells by its hooks; a session without any answers nothing."""

    async def told(self, **event: str) -> tuple[str, tuple[int, ...]]:
        """Take an event; return the hook's answer and the messages that are in it whole."""
        del event
        return "{}", ()


@dataclass(slots=True, kw_only=True)
class Member:
    """What tools work with.

    Attributes:
        client: the way to the broker.
        cwd, git_root, repo: where the session works.
        fleet_id, device_id: which fleet and device it says it is in, "" for none.
        route: how pushes reach the agent, as the roster shows it.
        server_name: what the agent's client calls this server.
        unread: ids of messages that came and were not shown yet.
        pushed: ids of messages the agent was given whole over a proven route.
        offered: ids of messages that are on their way to the agent, or of which it was shown the
            beginning: they are not offered again, and are shown whole when it asks.
        in_hand: ids of messages in results that are being written.
        brief: the last messages shown by their first line only, to be repeated on request.
        summarised: whether the agent has said what it works on.
        items: the unread messages whose text is at hand, by id.
        expiry: when unread messages die, seconds since the epoch, as far as the broker told it.
        wall: the clock for that.
        hooks: what takes the events of the client's hooks.
        repeats: the sends that got no answer.
    """

    client: Client
    cwd: str
    git_root: str | None = None
    repo: str | None = None
    fleet_id: str = ""
    device_id: str = ""
    route: str = ""
    server_name: str = "claude-peers"
    unread: set[int] = field(default_factory=set)
    pushed: set[int] = field(default_factory=set)
    offered: set[int] = field(default_factory=set)
    in_hand: set[int] = field(default_factory=set)
    brief: dict[int, dict[str, Any]] = field(default_factory=dict)
    summarised: bool = False
    items: dict[int, Item] = field(default_factory=dict)
    expiry: dict[int, float] = field(default_factory=dict)
    wall: Callable[[], float] = time.time  # noqa: TID251 - what brokers tell times in
    hooks: Hooks = field(default_factory=Hooks)
    repeats: Repeats = field(default_factory=Repeats)
    _size: int = 0
    _arrivals: set[asyncio.Future[None]] = field(default_factory=set)
    _polls: dict[asyncio.Future[Any], set[int]] = field(default_factory=dict)
    _known: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _returning: dict[asyncio.Task[Any], set[int]] = field(default_factory=dict)

    @property
    def me(self) -> dict[str, Any]:
        """The body of requests that need no more than the peer they are about."""
        return {"id": self.client.peer_id}

    def first_time(self, uid: str) -> bool:
        """Whether a message comes for the first time; from now on it does not."""
        if uid in self._known:
            return False
        self._known[uid] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return True

    def arrive(self, message: dict[str, Any], sender: dict[str, Any] | None) -> bool:
        """Take note of a message that was pushed; False if it came before."""
        if not self.first_time(message["uid"]):
            return False
        self.unread.add(message["id"])
        self._note_expiry(message)
        size = len(message["text"])
        if self._size + size <= AT_HAND:
            self._size += size
            self.items[message["id"]] = (message, sender)
        for waiting in self._arrivals:
            if not waiting.done():
                waiting.set_result(None)
        return True

    @property
    def waiting(self) -> bool:
        """Whether a call waits for messages to arrive."""
        return bool(self._arrivals)

    async def arrival(self) -> None:
        """Return when a message has come since the call."""
        waiting = asyncio.get_running_loop().create_future()
        self._arrivals.add(waiting)
        try:
            await waiting
        finally:
            self._arrivals.discard(waiting)

    def pending(self) -> list[Item]:
        """Return what is at hand, unread, and in nobody's hands: not pushed, not being shown."""
        self.expire()
        free = self.unread - self.in_hand - self.pushed - self.offered
        return [self.items[number] for number in sorted(free) if number in self.items]

    def expire(self) -> None:
        """Let go of messages that have died unread."""
        now = self.wall()
        self.forget([number for number, dies_at in self.expiry.items() if dies_at <= now])

    def forget(self, ids: Iterable[int]) -> None:
        """Let go of messages that are unread no longer."""
        for number in ids:
            self.unread.discard(number)
            self.pushed.discard(number)
            self.offered.discard(number)
            self.expiry.pop(number, None)
            for gone in self._polls.values():
                gone.add(number)
            if item := self.items.pop(number, None):
                self._size -= len(item[0]["text"])

    async def call(self, operation: str, **body: Any) -> Any:
        """Ask the broker."""
        return await self.client.call(operation, body)

    async def send(self, to_id: str, text: str, **more: Any) -> Any:
        """Send a message; however often the request or the call travels, it is one message.

        Args:
            to_id: id, name or directory of the recipient.
            text: what to say.
            more: further fields of the request; those that are None stay out.
        """
        given = {name: value for name, value in more.items() if value is not None}
        body = {"to_id": to_id, "text": text, **given}
        answer = await self._once("/send-message", body, to_id)
        if "reply_to" in given:  # who answers a message has read it
            self.forget((given["reply_to"],))
        return answer

    async def publish(self, body: dict[str, Any]) -> Any:
        """Send a broadcast; however often it travels, nobody gets it twice."""
        return await self._once("/broadcast", body, body.get("scope") or body.get("topic", ""))

    async def take(self, *, but: Collection[int] = ()) -> list[dict[str, Any]]:
        """Take a page of unread mail; a sub-agent only looks at it.

        A caller that is cancelled meanwhile will not see it: then it goes straight back.

        Args:
            but: messages that are not wanted.
        """
        if CALL.get().sub_agent:
            looked: list[dict[str, Any]] = (await self.call("/peek-messages", **self.me))[
                "messages"
            ]
            return [view for view in looked if view["id"] not in but][:PAGE]
        self.expire()
        counted = self.unread - self.in_hand
        polling = asyncio.ensure_future(
            self.call(
                "/poll-messages",
                **self.me,
                ack_supported=True,
                limit=PAGE,
                exclude=sorted(self.in_hand.union(but)),
            )
        )
        gone = self._polls[polling] = set()
        try:
            await asyncio.wait((polling,))
        except asyncio.CancelledError:
            polling.add_done_callback(self._unwanted)
            raise
        finally:
            del self._polls[polling]
        polled: list[dict[str, Any]] = polling.result()["messages"]
        # What another result has taken meanwhile is shown there.
        views = [view for view in polled if view["id"] not in gone | self.in_hand]
        self._count(views, counted, everything=len(polled) < PAGE and not but)
        return views

    def give_back(self, ids: Iterable[int]) -> None:
        """Return messages that were taken and will not be shown; nobody waits for it."""
        returned = set(ids)
        if not returned:
            return
        body = {**self.me, "message_ids": sorted(returned)}
        task = asyncio.ensure_future(self.client.call("/release-messages", body))
        self._returning[task] = returned
        task.add_done_callback(self._returned)

    def keep_brief(self, views: list[dict[str, Any]]) -> None:
        """Remember messages that were shown by their first line; only the last page of them."""
        self.brief |= {view["id"]: view for view in views}
        while len(self.brief) > PAGE:
            del self.brief[next(iter(self.brief))]

    def shown(
        self, ids: tuple[int, ...], via: str = "check_messages", *, whole: bool
    ) -> tuple[str, dict[str, Any]]:
        """Take note of what became of a result; return the request that tells the broker."""
        self.in_hand.difference_update(ids)
        body = {**self.me, "message_ids": list(ids), "via": via}
        if not whole:
            return "/release-messages", body
        self.forget(ids)
        return "/ack-messages", body

    async def _once(self, operation: str, body: dict[str, Any], to: str) -> Any:
        said = (operation, *sorted(body.items()))
        return await self.repeats.send(
            said,
            to,
            CALL.get().tool_use or key(),
            lambda known: self.call(
                operation, from_id=self.client.peer_id, **body, dedupe_key=known
            ),
        )

    def _count(self, views: list[dict[str, Any]], counted: set[int], *, everything: bool) -> None:
        """Correct the count of unread messages by what the broker handed out.

        Less than a page is everything there is: what was counted besides has expired, or was
        acknowledged by somebody else. A push that is still on its way is not counted again.
        """
        ids = {view["id"] for view in views}
        for view in views:
            self.first_time(view["uid"])
            self._note_expiry(view)
        if everything:
            self.forget(counted - ids - self.in_hand - set().union(*self._returning.values()))
        self.unread |= ids

    def _note_expiry(self, view: dict[str, Any]) -> None:
        dies_at = view.get("expires_at")
        if isinstance(dies_at, (int, float)):  # agentmesh's peers get a text, older ones nothing
            self.expiry[view["id"]] = dies_at

    def _unwanted(self, polling: asyncio.Future[Any]) -> None:
        if not polling.cancelled() and polling.exception() is None:
            self.give_back(view["id"] for view in polling.result()["messages"])

    def _returned(self, task: asyncio.Task[Any]) -> None:
        del self._returning[task]
        if not task.cancelled():
            task.exception()  # without a broker they are free again already
