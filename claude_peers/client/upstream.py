"""A session's way to an upstream broker: the same Link, over plain polling HTTP.

Upstream is claude-peers-mcp, and agentmesh, which has topics as well. Both consume on poll. So what
a poll returned is passed on at once, for the client to hold until the agent has seen it, and our
own requests about mail need no answer from there.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from claude_peers.client import others
from claude_peers.client.errors import NotOfferedError
from claude_peers.client.http import BrokerHttp
from claude_peers.client.link import Answered, Pushed, Settled
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.models import Process

POLL_EVERY = 1.0  # as upstream's own clients: claude-peers-mcp server.ts
HEARTBEAT_EVERY = 15
"""Polls between two heartbeats."""
_OURS = {
    *("/ack-messages", "/release-messages", "/pushed-messages", "/poll-messages"),
    *("/set-route", "/add-keys"),
}
_FIELDS = {
    "/register": ("pid", "cwd", "git_root", "tty", "summary"),
    "/send-message": ("from_id", "to_id", "text"),
}
_AGENTMESH = {
    "/register": {
        **{name: name for name in ("fleet_id", "device_id", "capabilities", "lwt")},
        "agent_name": "name",
        "agent_type": "client",
    },
    "/send-message": {"qos": "qos"},
}
"""What agentmesh knows besides: its field, and ours. Versions that do not know one pass over it."""
_TAKEN = ("from_id", "to_id", "text", "sent_at", "topic")
"""What a message says; agentmesh's `expires_at` and `qos` are not what ours mean by them."""


class UpstreamLink:
    """See `client.link.Link`.

    Messages get negative ids: a broker of ours, which may follow, counts from 1 as well.

    Args:
        http: a verified connection to the broker.
    """

    def __init__(self, http: BrokerHttp) -> None:
        self.answered: Answered = lambda _number, _status, _body: None
        self.pushed: Pushed = lambda _message, _sender: None
        self.settled: Settled = lambda _ids: None
        self.beat: Callable[[], None] = lambda: None
        self.epoch: int | None = None
        self.leader: Process | None = None
        self.standby = False
        self.keeps = False
        self._http = http
        self._health = http.health
        self._peer_id = ""
        self._requests: asyncio.Queue[tuple[int, str, dict[str, Any]] | None] = asyncio.Queue()
        self._closing = False
        self._task = asyncio.ensure_future(self._run())

    def send(self, number: int, operation: str, body: dict[str, Any]) -> None:
        """See `client.link.Link`."""
        self._requests.put_nowait((number, operation, body))

    def prove(self, secret: bytes) -> str | None:
        """See `client.link.Link`."""
        del secret  # nothing to prove to a broker that asks for nothing
        return None

    async def ended(self) -> None:
        """See `client.link.Link`."""
        await asyncio.wait([self._task])

    def close(self) -> None:
        """See `client.link.Link`; what is under way is finished, as a poll may have taken mail."""
        self._closing = True
        self._requests.put_nowait(None)

    async def _run(self) -> None:
        polls = 0
        loop = asyncio.get_running_loop()
        due = loop.time() + POLL_EVERY
        with contextlib.closing(self._http), contextlib.suppress(NoBrokerError):
            while not self._closing:
                # Requests may come faster than polls are due, and must not keep them off.
                if loop.time() < due:
                    await self._next(due)
                else:
                    polls += 1
                    await self._poll(beat=polls % HEARTBEAT_EVERY == 0)
                    self.beat()
                    due = loop.time() + POLL_EVERY

    async def _next(self, due: float) -> None:
        try:
            async with asyncio.timeout_at(due):
                request = await self._requests.get()
        except TimeoutError:
            return
        if request is not None:
            number, operation, body = request
            self.answered(number, *await self._serve(operation, body))

    async def _serve(self, operation: str, body: dict[str, Any]) -> tuple[int, Any]:
        if operation in _OURS:
            if operation == "/poll-messages":
                await self._poll(beat=False)
                return 200, {"messages": []}
            return 200, {"ok": True}
        try:
            others.check(operation, body, self._health)
            known = self._known(operation, body)
            status, answer = await asyncio.to_thread(self._http.post, operation, known)
            answer = others.narrowed(operation, body, answer, self._health)
        except NotOfferedError as error:
            return error.status, error.body
        if operation == "/register" and isinstance(answer, dict) and "id" in answer:
            self._peer_id = str(answer["id"])
            # No name comes back, and a token that means nothing to the next broker, which knows
            # the session by its own name and token.
            answer = {"id": self._peer_id, "name": body["name"]}
        return status, answer

    def _known(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return what of a request the broker knows, in its words."""
        known = {name: body.get(name) for name in _FIELDS.get(operation, body)}
        if others.speaks_agentmesh(self._health):
            more = _AGENTMESH.get(operation, {})
            known |= {
                name: body[own] for name, own in more.items() if body.get(own) not in (None, "")
            }
        if operation == "/register" and "agent_type" in known:  # a name, without the version
            known["agent_type"] = str(known["agent_type"]).partition(" ")[0]
        return known

    async def _poll(self, *, beat: bool) -> None:
        if not self._peer_id:
            return
        me = {"id": self._peer_id}
        if beat:
            await asyncio.to_thread(self._http.post, "/heartbeat", me)
        _, answer = await asyncio.to_thread(self._http.post, "/poll-messages", me)
        for message in answer.get("messages", ()) if isinstance(answer, dict) else ():
            if isinstance(message, dict) and isinstance(message.get("id"), int):
                number = message["id"]
                known = {name: message[name] for name in _TAKEN if message.get(name) is not None}
                self.pushed(known | {"id": -number, "uid": f"upstream-{number}"}, None)
