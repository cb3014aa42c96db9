"""One session's peer as its tools see it."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from claude_peers.client.client import Client, key
from claude_peers.core.limits import PAGE

REMEMBERED = 4096
"""Messages a session remembers, so that none is pushed twice."""


@dataclass(slots=True, kw_only=True)
class Member:
    """What tools work with.

    Attributes:
        client: the way to the broker.
        cwd, git_root, repo: where the session works.
        route: how pushes reach the agent, as the roster shows it.
        server_name: what the agent's client calls this server.
        unread: ids of messages that came and were not shown yet.
        pushed: ids of messages the agent was given over a proven route.
        in_hand: ids of messages in results that are being written.
        brief: the last messages shown by their first line only, to be repeated on request.
        summarised: whether the agent has said what it works on.
    """

    client: Client
    cwd: str
    git_root: str | None = None
    repo: str | None = None
    route: str = ""
    server_name: str = "claude-peers"
    unread: set[int] = field(default_factory=set)
    pushed: set[int] = field(default_factory=set)
    in_hand: set[int] = field(default_factory=set)
    brief: dict[int, dict[str, Any]] = field(default_factory=dict)
    summarised: bool = False
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

    async def call(self, operation: str, **body: Any) -> Any:
        """Ask the broker."""
        return await self.client.call(operation, body)

    async def send(self, to_id: str, text: str, *, reply_to: int | None) -> Any:
        """Send a message; however often the request travels, it is one message."""
        body: dict[str, Any] = {
            "from_id": self.client.peer_id,
            "to_id": to_id,
            "text": text,
            "dedupe_key": key(),
        }
        if reply_to is not None:
            body["reply_to"] = reply_to
        return await self.client.call("/send-message", body)

    async def take(self) -> list[dict[str, Any]]:
        """Take a page of unread mail.

        A caller that is cancelled meanwhile will not see it: then it goes straight back.
        """
        counted = self.unread - self.in_hand
        polling = asyncio.ensure_future(
            self.call(
                "/poll-messages",
                **self.me,
                ack_supported=True,
                limit=PAGE,
                exclude=sorted(self.in_hand),
            )
        )
        try:
            await asyncio.wait((polling,))
        except asyncio.CancelledError:
            polling.add_done_callback(self._unwanted)
            raise
        views: list[dict[str, Any]] = polling.result()["messages"]
        self._count(views, counted)
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

    def shown(self, ids: tuple[int, ...], *, whole: bool) -> tuple[str, dict[str, Any]]:
        """Take note of what became of a result; return the request that tells the broker."""
        self.in_hand.difference_update(ids)
        if not whole:
            return "/release-messages", {**self.me, "message_ids": list(ids)}
        self.unread.difference_update(ids)
        self.pushed.difference_update(ids)
        return "/ack-messages", {**self.me, "message_ids": list(ids)}

    def _count(self, views: list[dict[str, Any]], counted: set[int]) -> None:
        """Correct the count of unread messages by what the broker handed out.

        Less than a page is everything there is: what was counted besides has expired, or was
        acknowledged by somebody else. A push that is still on its way is not counted again.
        """
        ids = {view["id"] for view in views}
        for view in views:
            self.first_time(view["uid"])
        if len(views) < PAGE:
            self.unread -= counted - self.in_hand - set().union(*self._returning.values())
        self.unread |= ids

    def _unwanted(self, polling: asyncio.Future[Any]) -> None:
        if not polling.cancelled() and polling.exception() is None:
            self.give_back(view["id"] for view in polling.result()["messages"])

    def _returned(self, task: asyncio.Task[Any]) -> None:
        del self._returning[task]
        if not task.cancelled():
            task.exception()  # without a broker they are free again already
