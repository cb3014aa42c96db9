"""A session's way to an upstream broker: the same Link, over plain polling HTTP.

An upstream broker consumes on poll. So what a poll returned is held here until the agent has
seen it, and the answers to our own requests about mail are given from what is held.
"""

import asyncio
import contextlib
from typing import Any

from claude_peers.client.http import BrokerHttp
from claude_peers.client.link import Answered, Pushed
from claude_peers.core.errors import ClaudePeersError, NoBrokerError
from claude_peers.core.models import Process

POLL_EVERY = 1.0  # as upstream's own clients: claude-peers-mcp server.ts
HEARTBEAT_EVERY = 15
"""Polls between two heartbeats."""
_OURS = {"/ack-messages", "/release-messages", "/pushed-messages", "/poll-messages"}
_FIELDS = {
    "/register": ("pid", "cwd", "git_root", "tty", "summary"),
    "/send-message": ("from_id", "to_id", "text"),
}


class UpstreamLink:
    """See `client.link.Link`.

    Args:
        http: a verified connection to the broker.
    """

    def __init__(self, http: BrokerHttp) -> None:
        self.answered: Answered = lambda _number, _status, _body: None
        self.pushed: Pushed = lambda _message, _sender: None
        self.epoch: int | None = None
        self.leader: Process | None = None
        self.standby = False
        self._http = http
        self._peer_id = ""
        self._held: dict[int, dict[str, Any]] = {}
        self._requests: asyncio.Queue[tuple[int, str, dict[str, Any]]] = asyncio.Queue()
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
        """See `client.link.Link`."""
        self._task.cancel()

    async def _run(self) -> None:
        polls = 0
        with contextlib.closing(self._http), contextlib.suppress(NoBrokerError):
            while True:
                try:
                    async with asyncio.timeout(POLL_EVERY):
                        number, operation, body = await self._requests.get()
                except TimeoutError:
                    polls += 1
                    await self._poll(beat=polls % HEARTBEAT_EVERY == 0)
                    continue
                self.answered(number, *await self._serve(operation, body))

    async def _serve(self, operation: str, body: dict[str, Any]) -> tuple[int, Any]:
        if operation in _OURS:
            if operation == "/poll-messages":
                await self._poll(beat=False)
            return 200, self._about_mail(operation, body)
        known = {name: body.get(name) for name in _FIELDS.get(operation, body)}
        try:
            status, answer = await asyncio.to_thread(self._http.post, operation, known)
        except NoBrokerError:
            raise
        except ClaudePeersError as error:
            return error.http_status, {"error": error.fact, "remedy": error.remedy}
        if operation == "/register" and isinstance(answer, dict):
            self._peer_id = str(answer.get("id", ""))
        return status, answer

    async def _poll(self, *, beat: bool) -> None:
        if not self._peer_id:
            return
        me = {"id": self._peer_id}
        if beat:
            await asyncio.to_thread(self._http.post, "/heartbeat", me)
        _, answer = await asyncio.to_thread(self._http.post, "/poll-messages", me)
        for message in answer.get("messages", []) if isinstance(answer, dict) else []:
            self._held[message["id"]] = message | {"uid": f"upstream-{message['id']}"}
            self.pushed(self._held[message["id"]], None)

    def _about_mail(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        if operation == "/poll-messages":
            exclude, limit = body.get("exclude", ()), body.get("limit") or None
            free = [message for number, message in self._held.items() if number not in exclude]
            return {"messages": free[:limit]}
        if operation == "/ack-messages":
            for number in body.get("message_ids", ()):
                self._held.pop(number, None)
        return {"ok": True}
