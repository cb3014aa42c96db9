"""The broker's end of a live connection: requests and pushes over one socket, after an upgrade."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from claude_peers.broker.registration import hash_token
from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import BACKLOG
from claude_peers.core.models import PeerId
from claude_peers.gateway.caller import ConnectionCaller
from claude_peers.wire import frames

if TYPE_CHECKING:
    from claude_peers.gateway.app import App
    from claude_peers.transports.live import LiveConnections, Stream

log = logging.getLogger(__name__)

REGISTER = "/register"
WATCH = "/watch"
"""What a node without an agent sends instead: it only wants to know when to campaign."""


class LiveProtocol(asyncio.Protocol):
    """One session's connection.

    Args:
        app: serves the requests.
        live: sends the pushes.
        caller: who is at the other end.
        changed: called when a session has attached or gone, with the connection.
    """

    def __init__(
        self,
        app: "App",
        live: "LiveConnections",
        caller: ConnectionCaller,
        *,
        changed: Callable[["LiveProtocol", bool], None],
    ) -> None:
        self.peer_id: PeerId | None = None
        self.pid: int | None = None
        self.introduced = False
        self.standby = False
        self.transport: asyncio.Transport
        self._app = app
        self._live = live
        self._caller = caller
        self._changed = changed
        self._stream: Stream | None = None
        self._buffer = bytearray()
        self._serving = 0
        self._clogged = False
        self._unwritten: list[Callable[[bool], None]] = []

    # The socket

    def adopt(self, transport: asyncio.Transport, rest: bytes) -> None:
        """Take over an upgraded connection, with what was read beyond the request."""
        self.transport = transport
        transport.set_write_buffer_limits(high=64 * 1024)
        transport.set_protocol(self)
        if rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Serve every complete frame, in order."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if line:
                self._frame(line)
        if len(self._buffer) > frames.MOST:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the broker know."""
        del exc
        self._written(whole=False)
        if self._stream is not None and self._live.detach(self._stream):
            self._app.broker.connection_ended(self._stream.peer_id)
        self._changed(self, False)  # noqa: FBT003 - attached or not

    def pause_writing(self) -> None:
        """The session reads more slowly than we write."""
        self._clogged = True

    def resume_writing(self) -> None:
        """The session has read what was waiting."""
        self._clogged = False
        self._written(whole=True)
        if self._stream is not None:
            self._stream.drained()

    # A sink for pushes

    def write(self, frame: bytes) -> None:
        """See `transports.live.Sink`."""
        self.transport.write(frame)

    @property
    def clogged(self) -> bool:
        """See `transports.live.Sink`."""
        return self._clogged or self.transport.is_closing()

    # Requests

    def _frame(self, line: bytes) -> None:
        try:
            number, path, body = frames.parse_request(line)
        except BadRequestError as error:
            log.warning("live connection: %s", error)
            self.transport.abort()
            return
        if self._serving == BACKLOG:
            self.transport.pause_reading()
        self._serving += 1
        # Tasks start in the order they are made, and an operation reaches the store before it
        # first waits: so the order of requests is the order of effects.
        self._app.broker.in_background(self._serve(number, path, body))

    async def _serve(self, number: int, path: str, body: dict[str, Any]) -> None:
        if path == WATCH:
            self.pid = body.get("pid")
            self._changed(self, True)  # noqa: FBT003 - attached or not
            return
        if self.peer_id is None and path != REGISTER:
            refusal = {"error": "The first request is /register", "code": "not_registered"}
            self.write(frames.answer(number, 401, refusal))
            return
        status, result, written = await self._app.call(self._caller, path, body)
        self._serving -= 1
        if self._serving < BACKLOG and not self.transport.is_closing():
            self.transport.resume_reading()
        self.write(frames.answer(number, status, result))
        if written is not None:
            self._tell(written)
        if path == REGISTER and status == 200:  # noqa: PLR2004 - HTTP's OK
            self.pid = body.get("pid")
            self._attach(PeerId(result["id"]), result["token"])

    def _attach(self, peer_id: PeerId, token: str) -> None:
        self.peer_id = peer_id
        self._caller.token_hash = hash_token(token)
        if self._stream is not None:
            self._live.detach(self._stream)
        self._stream = self._live.attach(peer_id, self)
        self._changed(self, True)  # noqa: FBT003 - attached or not

    def _tell(self, written: Callable[[bool], None]) -> None:
        if self.transport.is_closing():
            written(False)  # noqa: FBT003 - the port's
        elif self._clogged:
            self._unwritten.append(written)
        else:
            written(True)  # noqa: FBT003 - the port's

    def _written(self, *, whole: bool) -> None:
        waiting, self._unwritten = self._unwritten, []
        for told in waiting:
            told(whole)
