"""The listening socket and its connections: HTTP by `h11`, behind framing and guard."""

import asyncio
import logging
import socket
from collections.abc import Callable

import h11

from claude_peers.core.errors import FencedError
from claude_peers.gateway import errors, framing
from claude_peers.gateway.app import App, Response, upgrade_refusal
from claude_peers.gateway.caller import ConnectionCaller
from claude_peers.gateway.framing import Head
from claude_peers.gateway.live import LiveProtocol
from claude_peers.transports.live import LiveConnections
from claude_peers.wire import frames, proof

log = logging.getLogger(__name__)

CONNECTIONS = 512
"""HTTP connections at a time; live ones, one a session, do not count."""
HEAD_WITHIN = 10.0
BODY_WITHIN = 30.0
IDLE = 75.0
WRITE_WITHIN = 10.0
"""Seconds for a request's head, its body, the pause before the next, and reading an answer."""


class Server:
    """Serves one app on one socket.

    Attributes:
        sessions: the live connections, oldest first.
    """

    def __init__(self, app: App, live: LiveConnections, *, uid: int) -> None:
        self.app = app
        self.live = live
        self.uid = uid
        self.sessions: list[LiveProtocol] = []
        self.attached: Callable[[], None] = lambda: None
        self.connections: set[HttpProtocol] = set()
        self.closing = False
        self._server: asyncio.Server

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpProtocol(self), sock=listener, backlog=512
        )

    async def stop_accepting(self, *, within: float) -> None:
        """Close the listener, and give what is being served a moment to be answered."""
        self.closing = True
        self._server.close()
        busy = [c.serving for c in self.connections if c.serving is not None]
        if busy:
            await asyncio.wait(busy, timeout=within)

    def hang_up(self) -> None:
        """End every connection; for the followers this is the signal to elect."""
        for connection in list(self.connections):
            connection.transport.close()
        for session in list(self.sessions):
            session.transport.close()

    def ping(self, *, own: int) -> None:
        """Give every session a sign of life, but not the one in this process (pid `own`)."""
        frame = frames.ping(self.app.broker.epoch)
        for session in self.sessions:
            if session.pid != own and not session.clogged:
                session.write(frame)

    def session_changed(self, session: LiveProtocol, attached: bool) -> None:  # noqa: FBT001 - a state
        """Keep the list of sessions."""
        if attached and session not in self.sessions:
            self.sessions.append(session)
        elif not attached and session in self.sessions:
            self.sessions.remove(session)
        self.attached()


class HttpProtocol(asyncio.Protocol):
    """One HTTP connection: a request at a time, then perhaps an upgrade."""

    def __init__(self, server: Server) -> None:
        self.serving: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport
        self._server = server
        self._caller: ConnectionCaller
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * framing.HEAD)
        self._buffer = bytearray()
        self._head: Head | None = None
        self._waiting: list[Callable[[bool], None]] = []
        self._deadline: asyncio.TimerHandle | None = None

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who is calling, before a byte is read."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server's
        self.transport = transport
        # Writing is finished when nothing is buffered: an answer counts as written only then.
        transport.set_write_buffer_limits(high=0)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._caller = ConnectionCaller(
            transport.get_extra_info("peername")[:2],
            transport.get_extra_info("sockname")[:2],
            secret=self._server.app.secret,
            uid=self._server.uid,
        )
        if len(self._server.connections) >= CONNECTIONS or self._server.closing:
            transport.abort()
            return
        self._server.connections.add(self)
        self._expect(HEAD_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; what was not written whole is told so."""
        del exc
        self._server.connections.discard(self)
        self._expect(None)
        self._told(whole=False)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request is served once it is complete."""
        self._buffer += data
        if self.serving is not None:
            if len(self._buffer) > framing.HEAD:
                self.transport.pause_reading()
            return
        try:
            self._advance()
        except errors.Refusal as refusal:
            self._refuse(refusal)

    def pause_writing(self) -> None:
        """The client reads slowly: it has a while."""
        self._expect(WRITE_WITHIN)

    def resume_writing(self) -> None:
        """Everything has been handed over."""
        self._expect(IDLE)
        self._told(whole=True)

    # Requests

    def _advance(self) -> None:
        if self._head is None:
            end = framing.head_end(self._buffer)
            if end is None:
                return
            raw = bytes(self._buffer[:end])
            head = framing.check(raw)
            self._server.app.admit(self._caller, head)
            self._head = head
            del self._buffer[:end]
            self._http.receive_data(raw)
            self._expect(BODY_WITHIN)
            if "100-continue" in head.headers.get("expect", "").lower() and head.content_length:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        if head.path == frames.LIVE_PATH:
            self._upgrade(head)
            return
        if len(self._buffer) < head.content_length:
            return
        body = bytes(self._buffer[: head.content_length])
        del self._buffer[: head.content_length]
        if body:  # for h11 no bytes mean the end of the connection
            self._http.receive_data(body)
        while self._http.next_event() not in (h11.NEED_DATA, h11.PAUSED):
            if self._http.their_state is h11.DONE:
                break
        self._expect(None)
        self.serving = asyncio.ensure_future(self._serve(head, body))

    async def _serve(self, head: Head, body: bytes) -> None:
        if self._server.closing:
            response = self._server.app.refused(FencedError(), head.path)
        else:
            response = await self._server.app.answer(self._caller, head, body)
        self.serving = None
        self._head = None
        if self.transport.is_closing():
            response.written(False)  # noqa: FBT003 - the port's
            return
        self._respond(response, keep=head.keep_alive and not self._server.closing)
        if self.transport.is_closing():
            return
        self._http.start_next_cycle()
        self.transport.resume_reading()
        if self._buffer:
            self.data_received(b"")

    def _respond(self, response: Response, *, keep: bool) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *errors.SECURITY_HEADERS,
            *response.headers,
            *([] if keep else [("Connection", "close")]),
        ]
        answer = h11.Response(
            status_code=response.status, headers=headers, reason=errors.reason(response.status)
        )
        events = (answer, h11.Data(data=response.body), h11.EndOfMessage())
        self._waiting.append(response.written)
        self.transport.write(b"".join(self._http.send(event) or b"" for event in events))
        if not self.transport.get_write_buffer_size():
            self._expect(IDLE)
            self._told(whole=not self.transport.is_closing())
        if not keep:
            self.transport.close()

    def _refuse(self, refusal: errors.Refusal) -> None:
        """Answer a request that did not pass; its connection ends, as its rest is unread."""
        self._http = h11.Connection(h11.SERVER)
        self._http.receive_data(b"GET / HTTP/1.1\r\nHost: refused\r\n\r\n")
        self._http.next_event()
        self.serving = None
        self._respond(self._server.app.refused(refusal, ""), keep=False)

    def _upgrade(self, head: Head) -> None:
        refusal = upgrade_refusal(head)
        if refusal is not None:
            raise refusal
        nonce = head.headers.get(proof.NONCE_HEADER, "")
        headers = [
            ("Upgrade", frames.PROTOCOL),
            ("Connection", "Upgrade"),
            *self._server.app.proofs(self._caller, nonce),
        ]
        self._http.next_event()
        answer = h11.InformationalResponse(
            status_code=101, headers=headers, reason=errors.reason(101)
        )
        self.transport.write(self._http.send(answer) or b"")
        self._expect(None)
        self._server.connections.discard(self)
        session = LiveProtocol(
            self._server.app,
            self._server.live,
            self._caller,
            changed=self._server.session_changed,
        )
        session.adopt(self.transport, bytes(self._buffer))

    # Time

    def _expect(self, within: float | None) -> None:
        """Close the connection unless the next step comes within so many seconds."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if within is not None and not self.transport.is_closing():
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(within, self.transport.abort)

    def _told(self, *, whole: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(whole)
