"""One WebSocket: `wsproto` between the bytes and the conversation (`gateway.agentmesh`).

Loaded with the first WebSocket. What it holds is bounded: one message of a client in pieces, the
messages of one read, and what was written last; a client that does not read is not read from, and
one that has not been heard of for a minute, however often it was pinged, is cut off.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from claude_peers.core.limits import BODY
from claude_peers.gateway.agentmesh import Conversation

if TYPE_CHECKING:
    from claude_peers.gateway.app import App, Caller
    from claude_peers.gateway.connection import Deadlines
    from claude_peers.transports.live import LiveConnections

log = logging.getLogger(__name__)

GOING_AWAY: Final = 1001
TOO_BIG: Final = 1009
BROKEN: Final = 1011
POLICY: Final = 1008


class WebSocketProtocol(asyncio.Protocol):
    """One client's connection.

    Args:
        app: the broker's.
        live: sends the messages.
        caller: who is at the other end.
        deadlines: seconds until it is cut off.
        ended: called once it has ended.
    """

    def __init__(
        self,
        app: "App",
        live: "LiveConnections",
        caller: "Caller",
        *,
        deadlines: "Deadlines",
        ended: Callable[["WebSocketProtocol"], None],
    ) -> None:
        self.transport: asyncio.Transport
        self.caller = caller
        self._app = app
        self._talk = Conversation(app, live, caller, self)
        self._deadlines = deadlines
        self._ended = ended
        self._ws = Connection(ConnectionType.SERVER)
        self._partial = bytearray()
        self._inbox: list[bytes] = []
        self._working = False
        self._clogged = False
        self._closing = False
        self._heard = 0.0
        self._pinged = False
        self._deaf = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # The socket

    def adopt(self, transport: asyncio.Transport, rest: bytes) -> None:
        """Take over an upgraded connection, with what was read beyond the request."""
        self.transport = transport
        # Written is what was handed to the system, nothing less: messages of quality 0 are over.
        transport.set_write_buffer_limits(high=0)
        transport.set_protocol(self)
        self._after("introduction", self._deadlines.head, self._stranger)
        self._after("silence", self._deadlines.silence / 2, self._listen)
        self._heard = asyncio.get_running_loop().time()
        self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and what is complete in them."""
        self._heard, self._pinged = asyncio.get_running_loop().time(), False
        if self._deaf or self._ws.state is ConnectionState.CLOSED:
            return
        self._ws.receive_data(data)
        for event in self._ws.events():
            self._take(event)
        self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the broker know."""
        del exc
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        self._talk.ended()
        self._ended(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: nor is it read from."""
        self._clogged = True
        self._flow()

    def resume_writing(self) -> None:
        """Everything has been handed to the system."""
        self._clogged = False
        self._talk.drained()
        self._flow()

    # What the conversation needs

    @property
    def clogged(self) -> bool:
        """Whether something still waits to be handed to the system, or it has ended."""
        return self._clogged or self._closing or self.transport.is_closing()

    @property
    def closing(self) -> bool:
        """Whether nobody is there any more."""
        return self._closing

    def send(self, data: bytes) -> None:
        """Write one message."""
        self._write(TextMessage(data=data.decode()))

    def introduced(self) -> None:
        """Let it be as silent as anybody else from now on, and count for its peer."""
        self.caller.holder = self.caller.holder or self.caller.token_hash
        self._timers.pop("introduction").cancel()

    def close(self, code: int, reason: str) -> None:
        """End it in the protocol's way; a client that does not answer is cut off."""
        if not self._closing:
            self._write(CloseConnection(code=code, reason=reason))
            self._closing = True
            self.transport.resume_reading()
            self._after("closing", self._deadlines.linger, self.transport.abort)

    # What the server needs

    def hang_up(self) -> None:
        """Cut it off."""
        self.transport.abort()

    def leave(self) -> None:
        """End it, for the client to come back to the next broker."""
        self.close(GOING_AWAY, "another broker takes over")
        self.transport.close()

    # Messages

    def _take(self, event: Event) -> None:
        match event:
            case CloseConnection():
                self._closed(event)
            case _ if self._closing:
                pass
            case TextMessage() | BytesMessage():
                self._collect(event)
            case Ping():  # at most as many as one read holds: who does not read is not read from
                self._write(event.response())
            case _:  # a pong has been heard of, which is all it is for
                pass

    def _collect(self, event: TextMessage | BytesMessage) -> None:
        self._partial += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._partial) > BODY:
            self._partial.clear()
            self.close(TOO_BIG, f"a message may have {BODY} bytes")
        elif event.message_finished:
            self._inbox.append(bytes(self._partial))
            self._partial.clear()

    def _closed(self, event: CloseConnection) -> None:
        if self._ws.state is ConnectionState.OPEN:  # what came was no frame, nor can one follow
            self._deaf = True
            self.close(event.code, event.reason or "")
            return
        if self._ws.state is ConnectionState.REMOTE_CLOSING:
            self._write(event.response())
        self._closing = True
        self.transport.close()

    def _work(self) -> None:
        if self._inbox and not self._working:
            self._working = True
            self._app.broker.in_background(self._serve())
        self._flow()

    async def _serve(self) -> None:
        try:
            while self._inbox and not self._closing:
                batch, self._inbox = self._inbox, []
                await self._talk.take(batch)
        except Exception:
            # The border: whoever reconnects finds all that was not acknowledged.
            log.exception("a WebSocket failed")
            self.close(BROKEN, "the broker failed; connect again")
        finally:
            self._working = False
            self._flow()

    def _flow(self) -> None:
        if (self._clogged or self._working) and not self._closing:
            self.transport.pause_reading()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _write(self, event: Event) -> None:
        if not (self._closing or self.transport.is_closing()):
            self.transport.write(self._ws.send(event))

    # Time

    def _after(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, call)

    def _stranger(self) -> None:
        self.close(POLICY, "the first frame is CONNECT")

    def _listen(self) -> None:
        """Ping who has been silent for half of the time, and cut off who stays so."""
        limit = self._deadlines.silence
        silent = asyncio.get_running_loop().time() - self._heard
        if silent >= limit:
            self.close(GOING_AWAY, "nothing was heard of you")
            return
        if silent >= limit / 2 and not self._pinged:
            self._pinged = True
            self._write(Ping())
        self._after("silence", (limit if self._pinged else limit / 2) - silent, self._listen)
