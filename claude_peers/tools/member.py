"""One session's peer as its tools see it."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from claude_peers.client.client import Client, key

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
        request: the client's own id of the tool call at hand, if it gave one.
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
    summarised: bool = False
    _known: OrderedDict[str, None] = field(default_factory=OrderedDict)

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

    def shown(self, ids: tuple[int, ...], *, whole: bool) -> tuple[str, dict[str, Any]]:
        """Take note of what became of a result; return the request that tells the broker."""
        self.in_hand.difference_update(ids)
        if not whole:
            return "/release-messages", {**self.me, "message_ids": list(ids)}
        self.unread.difference_update(ids)
        self.pushed.difference_update(ids)
        return "/ack-messages", {**self.me, "message_ids": list(ids)}
