"""The broker's end of a live connection: requests and pushes over one socket, after an upgrade."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from claude_peers.broker.registration import hash_token
from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import BACKLOG
from claude_peers.core.models import PeerId
from claude_peers.wire import frames

if TYPE_CHECKING:
    from claude_peers.gateway.app import App, Caller
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
        caller: "Caller",
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
        self.caller = caller
        self._changed = changed
        self._introduction: asyncio.TimerHandle
        self._stream: Stream | None = None  # none for a second server of a peer's agent
        self._buffer = bytearray()
        self._serving = 0
        self._clogged = False
        self._unwritten: list[Callable[[bool], None]] = []

    @property
    def machine(self) -> str:
        """The machine that the session is on, "" for this one."""
        return self.caller.machine

    # The socket

    def adopt(self, transport: asyncio.Transport, rest: bytes, *, within: float) -> None:
        """Take over an upgraded connection, with what was read beyond the request.

        Whoever does not introduce itself within so many seconds is cut off.
        """
        self.transport = transport
        transport.set_write_buffer_limits(high=64 * 1024)
        transport.set_protocol(self)
        loop = asyncio.get_running_loop()
        self._introduction = loop.call_later(within, transport.abort)
        self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Serve every complete frame, in order."""
        self._buffer += data
        self._take_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the broker know."""
        del exc
        self._introduction.cancel()
        self._app.broker.mail.arrivals.gone(self.caller)
        self._written(whole=False)
        if self.peer_id is not None and self._stream is None:
            self._live.part(self.peer_id, self)
            self._app.broker.roster.release(self.caller.token_hash)
        if self._stream is not None and self._live.detach(self._stream):
            self._app.broker.connection_ended(self._stream.peer_id)
        self._changed(self, False)  # noqa: FBT003 - attached or not

    def pause_writing(self) -> None:
        """The session reads more slowly than we write: nor is it read from."""
        self._clogged = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The session has read what was waiting."""
        self._clogged = False
        self._written(whole=True)
        if self._stream is not None:
            self._stream.drained()
        self._take_frames()

    def hang_up(self) -> None:
        """See `transports.live.Sink` and `transports.live.Companion`."""
        self.transport.abort()

    def leave(self) -> None:
        """End it after what has been written; for a follower this is the signal to elect."""
        self.transport.close()

    # A sink for pushes

    def write(self, frame: bytes) -> None:
        """See `transports.live.Sink`."""
        self.transport.write(frame)

    @property
    def clogged(self) -> bool:
        """See `transports.live.Sink`."""
        return self._clogged or self.transport.is_closing()

    # Requests

    def _take_frames(self) -> None:
        """Serve what is complete, as far as there is room for more requests."""
        while self._has_room and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if line:
                self._take(line)
        if not self._has_room:
            self.transport.pause_reading()
        elif len(self._buffer) > frames.MOST:
            log.warning("live connection: a frame is longer than %d bytes", frames.MOST)
            self.transport.abort()
        else:
            self.transport.resume_reading()

    @property
    def _has_room(self) -> bool:
        return self._serving < BACKLOG and not self.clogged

    def _take(self, line: bytes) -> None:
        try:
            number, path, body = frames.parse_request(line)
        except BadRequestError as error:
            log.warning("live connection: %s", error)
            self.transport.abort()
            return
        self._serving += 1
        # Tasks start in the order they are made, and an operation reaches the store before it
        # first waits: so the order of requests is the order of effects.
        self._app.broker.in_background(self._serve(number, path, body))

    async def _serve(self, number: int, path: str, body: dict[str, Any]) -> None:
        try:
            if path == WATCH:
                self._introduced(body)
            elif self.peer_id is None and path != REGISTER:
                refusal = {"error": "The first request is /register", "code": "not_registered"}
                self.write(frames.answer(number, 401, refusal))
            else:
                await self._answer(number, path, body)
        finally:
            self._serving -= 1
            self._take_frames()

    async def _answer(self, number: int, path: str, body: dict[str, Any]) -> None:
        status, result, written = await self._app.call(self.caller, path, body)
        joined = result if path == REGISTER and status == 200 else None  # noqa: PLR2004 - HTTP's OK
        if self.transport.is_closing():
            if written is not None:
                written(False)  # noqa: FBT003 - the port's
            if joined is not None:
                self._never_joined(joined)
            return
        self.write(frames.answer(number, status, result))
        if written is not None:
            self._tell(written)
        if joined is not None and "secondary" in joined:
            self.peer_id = PeerId(joined["id"])
            self.caller.token_hash = hash_token(joined["token"])
            self._live.accompany(self.peer_id, self)
            self._introduced(body)
        elif joined is not None:
            # Who comes back with its token after a take-over has all that was pushed before.
            again = joined["token"] == body.get("token")
            self._attach(
                PeerId(joined["id"]), joined["token"], after=body.get("after") or 0 if again else 0
            )
            self._introduced(body)

    def _never_joined(self, joined: dict[str, Any]) -> None:
        """Undo a registration whose answer nobody will read."""
        if "secondary" in joined:
            self._app.broker.roster.release(hash_token(joined["token"]))
        else:
            self._app.broker.connection_ended(PeerId(joined["id"]))

    def _attach(self, peer_id: PeerId, token: str, *, after: int) -> None:
        self.peer_id = peer_id
        self.caller.token_hash = hash_token(token)
        if self._stream is not None:
            self._live.detach(self._stream)
        if self._live.reaches(peer_id):
            # Its earlier connection is dead, only nobody has noticed: what that had in hand
            # must be there for the requests on this one.
            self._app.broker.connection_ended(peer_id)
        self._stream = self._live.attach(peer_id, self, after=after)

    def _introduced(self, body: dict[str, Any]) -> None:
        pid = body.get("pid")
        self.pid = pid if isinstance(pid, int) else None
        # From here on it is an agent, and agents do not act for their user.
        self.caller.proved = False
        self._introduction.cancel()
        if not self.transport.is_closing():
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
