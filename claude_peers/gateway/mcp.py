"""`/mcp`: the tools for MCP clients that speak HTTP, each known by its peer's token.

What answers is loaded with the first request, on a thread: it brings the official SDK, half a
second and 40 MiB, and the loop it would hold up serves every session of the machine. Nothing is
kept from one request to the next, so that any broker can answer the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

from claude_peers.core.models import Peer, PeerId
from claude_peers.gateway.app import App, Caller, Response
from claude_peers.gateway.framing import Head

Told = tuple[int, str, bytes, Callable[[bool], None]]
"""Status, content type, body, and who wants to know whether that was written whole."""
Endpoint = Callable[["Visit"], Awaitable[Told]]


class Visit:
    """One request, and what the peer that makes it can ask of the broker.

    Attributes:
        peer_id: the peer whose token the request shows.
        headers: by lower-case name.
        body: as sent.
    """

    def __init__(self, app: App, caller: Caller, *, peer: Peer, head: Head, body: bytes) -> None:
        self.peer_id: PeerId = peer.id
        self.headers: Mapping[str, str] = head.headers
        self.body = body
        self._app = app
        self._caller = caller

    @property
    def peer(self) -> Peer:
        """The peer as it is now."""
        peer = self._app.broker.roster.get(self.peer_id)
        assert peer is not None  # noqa: S101 - nobody is forgotten who has just been heard of
        return peer

    async def call(self, operation: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Ask the broker; every request is a sign of life. Returns status and JSON."""
        await self._app.broker.peers.heartbeat(self._caller, self.peer_id)
        status, answer, written = await self._app.call(self._caller, operation, body)
        if written is not None:
            written(True)  # noqa: FBT003 - the port's; it has come as far as it goes
        return status, answer

    def arrival(self) -> AbstractContextManager["asyncio.Future[None]"]:
        """Give a future that is done once a message has come."""
        return self._app.broker.mail.arrivals.of(self.peer_id)

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something nobody waits for; a failure is logged."""
        self._app.broker.in_background(work)


class Mcp:
    """Answers requests to `/mcp`.

    Args:
        app: the broker's, which has seen to the token.
        load: loads what answers; it is called on a thread, and again only if it failed.
    """

    def __init__(self, app: App, *, load: Callable[[], Endpoint]) -> None:
        self._app = app
        self._load = load
        self._loading: asyncio.Future[Endpoint] | None = None

    async def __call__(self, caller: Caller, head: Head, body: bytes) -> Response:
        """Answer a request.

        Raises:
            ClaudePeersError: what answers cannot be loaded.
        """
        peer = self._app.broker.roster.by_token(caller.token_hash)
        assert peer is not None  # noqa: S101 - the guard lets in nobody else
        endpoint = await self._endpoint()
        visit = Visit(self._app, caller, peer=peer, head=head, body=body)
        answering = asyncio.ensure_future(endpoint(visit))
        leaving = asyncio.ensure_future(caller.left.wait())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            answering.cancel()  # nobody waits any more for what a call still waits for
        with suppress(asyncio.CancelledError):
            status, content_type, told, written = await answering
            return Response(status=status, body=told, content_type=content_type, written=written)
        return Response(status=408)  # to nobody: the caller has left

    async def _endpoint(self) -> Endpoint:
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        loading = self._loading
        try:
            # Whoever gives up takes the loading from nobody else.
            return await asyncio.shield(loading)
        except Exception:
            if self._loading is loading:
                self._loading = None
            raise
