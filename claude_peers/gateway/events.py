"""`/events`: a peer's mail as Server-Sent Events, for whatever can read lines from a URL.

An event's id is its message's. What was sent is in hand until it is acknowledged: by
`/ack-messages`, or by coming back with the id of the last event that arrived, which answers for
all that were sent before. The rest is there again once the connection has ended.

A reader that does not read is sent away after a while: what was written for it waits in this
process. One that reads and does not acknowledge keeps what it has in hand, as that is bounded, and
gets no more.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from claude_peers.broker.operations import agentmesh
from claude_peers.broker.streams import Hand
from claude_peers.core.errors import BadRequestError, PeerNotFoundError
from claude_peers.core.models import Message, Presence
from claude_peers.gateway import errors
from claude_peers.transports.leased import LeasedStream, attach
from claude_peers.wire.codec import dumps

if TYPE_CHECKING:
    from claude_peers.gateway.app import App, Caller
    from claude_peers.gateway.framing import Head
    from claude_peers.transports.live import LiveConnections

log = logging.getLogger(__name__)

ROUTE: Final = "events"
KEEP_ALIVE: Final = 15.0
"""Seconds between two comments, by which both sides notice that the other one has gone."""
PATIENCE: Final = 4
"""Times in a row at which a reader had left something unread, and read nothing since the last."""
TYPE: Final = "text/event-stream;charset=utf-8"
_HELLO: Final = b": your mail, as it comes\nretry: 1000\n\n"
_GOODBYE: Final = (
    b": nothing was read for a minute: come back with the id of the last event that you are done "
    b"with, as Last-Event-ID; the rest comes again\n\n"
)


def open_hand(app: "App", caller: "Caller", head: "Head") -> Hand:
    """Return the empty hand of a request for a stream.

    Raises:
        BadRequestError: it does not say whose mail, or where to go on.
        NotYourPeerError: the caller may not act for that peer.
        PeerNotFoundError: there is no such peer.
    """
    query = parse_qs(head.target.partition("?")[2])
    known = app.broker.roster.by_token(caller.token_hash)
    peer_id = query.get("id", [known.id if known else ""])[-1]
    if not peer_id:
        raise BadRequestError("`id` is missing", "Ask for /events?id=ID, or show a peer's token.")
    last = head.headers.get("last-event-id") or query.get("last_id", ["0"])[-1]
    if not last.isascii() or not last.isdigit() or len(last) > len(str(1 << 53)):
        raise BadRequestError(
            "The last event's id is not a whole number",
            "Send Last-Event-ID, or last_id in the query, as it came with the last event.",
        )
    hand = app.broker.streams.open(caller, peer_id, via=ROUTE, ack_within=math.inf, upto=int(last))
    peer = app.broker.roster.get(peer_id)
    if peer is None or peer.presence is Presence.DEPARTED:
        raise PeerNotFoundError(peer_id)
    return hand


class EventsProtocol(asyncio.Protocol):
    """One stream; also the sink of its messages (`transports.leased`).

    Args:
        app: the broker's.
        live: sends the messages.
        caller: who reads.
        hand: the reader's, as `open_hand` gave it.
        ended: called once the stream has ended.
    """

    def __init__(
        self,
        app: "App",
        live: "LiveConnections",
        caller: "Caller",
        hand: Hand,
        *,
        ended: Callable[["EventsProtocol"], None],
    ) -> None:
        self.transport: asyncio.Transport
        self.caller = caller
        self._app = app
        self._live = live
        self._hand = hand
        self._ended = ended
        self._clogged = False
        self._last = 0
        self._progress = (0, 0)
        self._stuck = 0
        self._stream: LeasedStream
        self._timer: asyncio.TimerHandle

    # The socket

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over the request's connection, answer, and begin."""
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # see `gateway.websocket`
        transport.set_protocol(self)
        headers = [("Content-Type", TYPE), *errors.SECURITY_HEADERS, ("Connection", "close")]
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers), "", ""]
        transport.write("\r\n".join(lines).encode() + _HELLO)
        self._wait()
        self._app.broker.reached_by(self._hand.owner, ROUTE)
        self._app.broker.in_background(self._come_back())
        self._stream = attach(self._live, self, self._hand)

    def data_received(self, data: bytes) -> None:
        """Read and drop: the answer never ends, so there is no next request."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what is in hand."""
        del exc
        self._timer.cancel()
        self._stream.end()
        if self._live.detach(self._stream):
            self._app.broker.stream_ended(self._hand.owner, missed=False)
        self._ended(self)

    def pause_writing(self) -> None:
        """The reader is slow: what is not written stays in the mailbox."""
        self._clogged = True

    def resume_writing(self) -> None:
        """Everything has been handed to the system."""
        self._clogged = False
        self._stream.drained()

    # A sink for messages

    def write_message(self, message: Message) -> None:
        """See `transports.leased.MessageSink`."""
        self._last = message.id
        broker = self._app.broker
        rows = agentmesh.speaks(broker, self.caller, self._hand.owner)
        (view,) = agentmesh.message_views(broker, (message,), kept=True, rows=rows)
        told = dumps(view).decode()
        self.transport.write(f"id: {message.id}\nevent: message\ndata: {told}\n\n".encode())

    @property
    def clogged(self) -> bool:
        """See `transports.leased.MessageSink`."""
        return self._clogged or self.transport.is_closing()

    def hang_up(self) -> None:
        """Cut it off; see `transports.leased.MessageSink`."""
        self.transport.abort()

    def leave(self) -> None:
        """End it, for the reader to come back to the next broker."""
        self.transport.close()

    async def _come_back(self) -> None:
        await self._app.broker.peers.heartbeat(self.caller, self._hand.owner)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._keep_alive)

    def _keep_alive(self) -> None:
        before = self._progress
        self._progress = (self._last, self.transport.get_write_buffer_size())
        self._stuck = self._stuck + 1 if self._clogged and before == self._progress else 0
        if self._stuck >= PATIENCE:
            self._send_away()
            return
        if not self.clogged:
            self.transport.write(b": \n\n")
        self._wait()

    def _send_away(self) -> None:
        log.warning(
            "the stream of events of %s is ended: its reader has %d messages in hand, and has "
            "read nothing for a minute",
            self._hand.owner,
            self._hand.count,
        )
        self.transport.write(_GOODBYE)
        self.transport.close()
        # It has this long to read on, else it gets no goodbye either.
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self.transport.abort)
