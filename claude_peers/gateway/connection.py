"""One HTTP connection of the broker: `h11`, behind framing and guard."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import h11

from claude_peers.core.errors import ClaudePeersError
from claude_peers.gateway import errors, framing, upgrades
from claude_peers.gateway.app import App, Caller, Response
from claude_peers.gateway.framing import Head
from claude_peers.wire import frames, proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds until a connection is cut.

    Attributes:
        head: for a request's head, and for the first request of a live connection.
        body: for its body.
        unjudged: for a body that is signed by nobody knows whom yet.
        idle: for the pause before the next request.
        write: for the client to read an answer.
        linger: after a refusal, for the client to stop sending and read it.
        silence: for a WebSocket's client to say anything, or answer a ping.
    """

    head: float = 10.0
    body: float = 30.0
    unjudged: float = 5.0
    idle: float = 75.0
    write: float = 10.0
    linger: float = 2.0
    silence: float = 60.0


USUAL: Final = Deadlines()


class Listener(Protocol):
    """What a connection needs of the server that accepted it."""

    app: App
    deadlines: Deadlines

    def identify(self, transport: asyncio.Transport) -> Caller:
        """Return who is at the other end."""
        ...

    def enter(self, connection: "HttpProtocol") -> bool:
        """Whether there is room for one more connection; if so it counts from now on."""
        ...

    def leave(self, connection: "HttpProtocol") -> None:
        """Count it no longer."""
        ...

    def body_within(self, caller: Caller) -> float:
        """Return the seconds for the body of an admitted request, or refuse by `CrowdedError`."""
        ...

    def make_sure(self, caller: Caller, *, live: bool) -> None:
        """Refuse, by `CrowdedError`, a live connection or WebSocket that there is no place for."""
        ...

    def upgraded(self, transport: asyncio.Transport, caller: Caller, rest: bytes) -> None:
        """Go on with a live connection; `rest` came right behind the request for it."""
        ...

    def websocket(self, transport: asyncio.Transport, caller: Caller, rest: bytes) -> None:
        """Go on with a WebSocket."""
        ...

    def events(self, caller: Caller, head: Head) -> Callable[[asyncio.Transport], None]:
        """Return what goes on with a stream of events, or refuse by a `ClaudePeersError`."""
        ...


class HttpProtocol(asyncio.Protocol):
    """A request at a time, then perhaps an upgrade.

    What comes while a request is served, or while its answer waits to be read, waits too: so a
    client that does not read costs one answer. A client that ends its side has gone; it could not
    be told from one whose process has died, and mail handed to that one would be lost.
    """

    def __init__(self, server: Listener) -> None:
        self.serving: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport
        self.caller: Caller
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * framing.HEAD)
        self._buffer = bytearray()
        self._head: Head | None = None
        self._begun = True
        self._refused = False
        self._waiting: list[Callable[[bool], None]] = []
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it has been answered and asks for nothing now, or was refused."""
        return not self._waiting and (self._refused or not (self._begun or self._buffer))

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who is calling, before a byte is read."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server's
        self.transport = transport
        # Writing is finished when nothing is buffered: an answer counts as written only then.
        transport.set_write_buffer_limits(high=0)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.caller = self._server.identify(transport)
        if not self._server.enter(self):
            transport.abort()
            return
        self._expect(self._server.deadlines.head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; what was not written whole is told so."""
        del exc
        self._server.leave(self)
        self._expect(None)
        self.caller.left.set()
        self._server.app.broker.mail.arrivals.gone(self.caller)
        self._told(whole=False)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request is served once it is complete."""
        if self._refused:
            return  # read and dropped: unread bytes would reset the connection under the answer
        self._buffer += data
        if self.serving is None and not self._waiting:
            self._go_on()
        elif len(self._buffer) > framing.HEAD:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        """The client reads slowly: it has a while."""
        self._expect(self._server.deadlines.write)

    def resume_writing(self) -> None:
        """Everything has been handed over."""
        if self._waiting:
            self._told(whole=True)
            self._next()

    # Requests

    def _go_on(self) -> None:
        try:
            self._advance()
        except ClaudePeersError as error:
            self._refuse(error)

    def _advance(self) -> None:
        head = self._head = self._head or self._take_head()
        if head is None or self._goes_on(head):
            return
        if len(self._buffer) < head.content_length:
            return
        body = bytes(self._buffer[: head.content_length])
        del self._buffer[: head.content_length]
        if body:  # for h11 no bytes mean the end of the connection
            self._http.receive_data(body)
        while self._http.their_state in (h11.IDLE, h11.SEND_BODY):
            self._http.next_event()
        self._expect(None)
        self.serving = asyncio.ensure_future(self._serve(head, body))

    def _take_head(self) -> Head | None:
        if self._buffer and not self._begun:
            self._begun = True
            self._expect(self._server.deadlines.head)
        end = framing.head_end(self._buffer)
        if end is None:
            return None
        raw = bytes(self._buffer[:end])
        head = framing.check(raw)
        self._server.app.admit(self.caller, head)
        self._expect(self._server.body_within(self.caller))
        del self._buffer[:end]
        self._http.receive_data(raw)
        # HTTP/1.0 knows no interim answers (RFC 9110, 10.1.1).
        expected = head.headers.get("expect", "").lower()
        if expected == "100-continue" and head.version != "1.0" and not self._buffer:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head

    async def _serve(self, head: Head, body: bytes) -> None:
        response = await self._server.app.answer(self.caller, head, body)
        self.serving = None
        self._head = None
        if self.transport.is_closing():
            response.written(False)  # noqa: FBT003 - the port's
            return
        keep = head.keep_alive and not self._server.app.closing
        self._write(response, keep=keep, bare=head.method == "HEAD")
        if not keep:
            self.transport.close()
        elif not self._waiting:
            self._next()

    def _next(self) -> None:
        if self.transport.is_closing() or self._refused:
            return
        self._expect(self._server.deadlines.idle)
        self._begun = False
        self._http.start_next_cycle()
        self.transport.resume_reading()
        if self._buffer:
            self._go_on()

    def _write(self, response: Response, *, keep: bool, bare: bool = False) -> None:
        """Write an answer; a `bare` one tells the length of the body and leaves it out."""
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
        events = (answer, h11.Data(data=b"" if bare else response.body), h11.EndOfMessage())
        self._waiting.append(response.written)
        self.transport.write(b"".join(self._http.send(event) or b"" for event in events))
        if not self.transport.get_write_buffer_size():
            self._told(whole=not self.transport.is_closing())

    def _refuse(self, error: ClaudePeersError) -> None:
        """Answer a request that did not pass; its connection ends, as its rest is unread."""
        self._http = h11.Connection(h11.SERVER)
        self._http.receive_data(b"GET / HTTP/1.1\r\nHost: refused\r\n\r\n")
        self._http.next_event()
        self._refused = True
        self._buffer.clear()
        self._write(self._server.app.refused(error, ""), keep=False)
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._expect(self._server.deadlines.linger)

    def _goes_on(self, head: Head) -> bool:
        """Hand the connection over if that is what the request asks for."""
        if head.path == frames.LIVE_PATH:
            upgrades.check_live(head)
            self._server.make_sure(self.caller, live=True)
            nonce = head.headers.get(proof.NONCE_HEADER, "")
            proofs = self._server.app.proofs(self.caller, nonce)
            self._upgrade([("Upgrade", frames.PROTOCOL), ("Connection", "Upgrade"), *proofs])
            self._server.upgraded(self.transport, self.caller, bytes(self._buffer))
        elif upgrades.wants_websocket(head):
            headers = upgrades.websocket_headers(head)
            self._server.make_sure(self.caller, live=False)
            self._upgrade(headers)
            self._server.websocket(self.transport, self.caller, bytes(self._buffer))
        elif head.path == upgrades.EVENTS_PATH:
            begin = self._server.events(self.caller, head)
            self._let_go()
            begin(self.transport)
        else:
            return False
        return True

    def _upgrade(self, headers: upgrades.Headers) -> None:
        self._http.next_event()
        answer = h11.InformationalResponse(
            status_code=101, headers=headers, reason=errors.reason(101)
        )
        self.transport.write(self._http.send(answer) or b"")
        self._let_go()

    def _let_go(self) -> None:
        self._expect(None)
        self._server.leave(self)

    # Time

    def _expect(self, within: float | None) -> None:
        """Cut the connection unless the next step comes within so many seconds."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if within is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(within, self.transport.abort)

    def _told(self, *, whole: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(whole)
