"""The listening socket: who may connect, and what becomes of all connections at the end."""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from claude_peers.gateway import places as rules
from claude_peers.gateway.app import App, Caller
from claude_peers.gateway.caller import ConnectionCaller, RemoteCaller
from claude_peers.gateway.connection import USUAL, Deadlines, HttpProtocol
from claude_peers.gateway.framing import Head
from claude_peers.gateway.live import LiveProtocol
from claude_peers.gateway.places import Places, share
from claude_peers.host import open_files, sockets
from claude_peers.transports.live import LiveConnections
from claude_peers.wire import frames

if TYPE_CHECKING:
    from ssl import SSLContext

KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 20),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),
)
"""Seconds, and milliseconds, after which another machine that has vanished is given up."""


class Upgraded(Protocol):
    """A connection that is no request's any more."""

    caller: Caller

    def hang_up(self) -> None:
        """Cut it off."""
        ...

    def leave(self) -> None:
        """End it: this broker hands over."""
        ...


class Server:
    """Serves one app: on this machine in plain HTTP, to other machines inside TLS.

    Attributes:
        sessions: the live connections that have introduced themselves, oldest first.
        attached: called whenever `sessions` has changed.
    """

    def __init__(
        self,
        app: App,
        live: LiveConnections,
        *,
        uid: int,
        deadlines: Deadlines = USUAL,
        places: Places | None = None,
    ) -> None:
        self.app = app
        self.deadlines = deadlines
        self.sessions: list[LiveProtocol] = []
        self.attached: Callable[[], None] = lambda: None
        self._live = live
        self._uid = uid
        self._places = places or share(open_files.most())
        self._tells = False
        self._connections: dict[HttpProtocol, None] = {}
        self._upgraded: set[Upgraded] = set()
        self._servers: list[asyncio.Server] = []

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a bound socket."""
        loop = asyncio.get_running_loop()
        port = listener.getsockname()[1]
        self._tells = sys.platform == "linux" and sockets.listener_uid(port) is not None
        self._servers.append(
            await loop.create_server(lambda: HttpProtocol(self), sock=listener, backlog=512)
        )

    async def start_tls(self, listener: socket.socket, context: "SSLContext") -> None:
        """Accept connections of other machines on a bound socket."""
        from claude_peers.wire.tls import Tls
        from claude_peers.wire.tls_stream import TlsStream

        server = await asyncio.get_running_loop().create_server(
            lambda: TlsStream(HttpProtocol(self), Tls(context)),
            sock=listener,
            backlog=64,
            start_serving=False,
        )
        self._servers.append(server)  # before it is waited for: it may have to be closed meanwhile
        await server.start_serving()

    async def stop_accepting(self, *, within: float) -> None:
        """Close the listener, and give what is being served a moment to be answered."""
        self.app.closing = True
        self.app.broker.mail.arrivals.stop()
        self.app.broker.wills.stop()
        for server in self._servers:
            server.close()
        busy = [c.serving for c in self._connections if c.serving is not None]
        if busy:
            await asyncio.wait(busy, timeout=within)

    def hang_up(self) -> None:
        """End every connection; for the followers this is the signal to elect."""
        for connection in list(self._connections):
            connection.transport.close()
        for session in list(self._upgraded):
            session.leave()

    def expel(self, machine: str) -> None:
        """End every connection of a machine, at once."""
        for connection in list(self._connections):
            if connection.caller.machine == machine:
                connection.transport.abort()
        for session in list(self._upgraded):
            if session.caller.machine == machine:
                session.hang_up()

    def ping(self) -> None:
        """Give every session a sign of life; the one in this process lives by its beat too."""
        frame = frames.ping(self.app.broker.epoch)
        for session in self.sessions:
            if not session.clogged:
                session.write(frame)

    # What connections need (see `gateway.connection.Listener`)

    def identify(self, transport: asyncio.Transport) -> Caller:
        """Return who is at the other end."""
        peer, me = (transport.get_extra_info(each)[:2] for each in ("peername", "sockname"))
        if (tls := transport.get_extra_info("tls")) is not None:
            _watch(transport.get_extra_info("socket"))
            return RemoteCaller(peer, me, machines=self.app.broker.machines, tls=tls)
        return ConnectionCaller(
            peer, me, secret=self.app.secret, uid=self._uid, knowable=self._tells
        )

    def enter(self, connection: HttpProtocol) -> bool:
        """Let a connection in, if need be in the place of one that is idle."""
        most = self._places.strangers
        if self.app.closing or (connection.caller.stranger and self._strangers() >= most):
            return False
        if len(self._connections) >= self._places.requests:
            idle = next((each for each in self._connections if each.idle), None)
            if idle is None:
                return False
            self.leave(idle)
            idle.transport.close()
        self._connections[connection] = None
        return True

    def leave(self, connection: HttpProtocol) -> None:
        """Count a connection no longer."""
        self._connections.pop(connection, None)

    def body_within(self, caller: Caller) -> float:
        """Return the seconds for the body of a request whose head was admitted.

        Raises:
            CrowdedError: it may be a stranger's, and there are as many as may be without it.
        """
        if not caller.unjudged:
            return self.deadlines.body
        if (strangers := self._strangers()) > self._places.strangers:  # it is among them
            caller.unjudged = False
            raise rules.too_many_posts(strangers - 1)
        return self.deadlines.unjudged

    def make_sure(self, caller: Caller, *, live: bool) -> None:
        """Make sure that there is a place for one more connection that stays.

        Raises:
            CrowdedError: there is none.
        """
        nobody = None if live or caller.machine else ""
        self._make_sure(caller, live=live, holder=caller.token_hash or nobody)

    def _make_sure(self, caller: Caller, *, live: bool, holder: str | None) -> None:
        together = len(self._connections) + len(self._upgraded)  # the one that asks is among them
        if together > self._places.together:
            raise rules.no_place(f"{together} connections")
        caller.holder = holder
        if not (live and _is_own(caller)):
            streams = [each.caller for each in self._upgraded if not _is_session(each)]
            rules.check(caller, streams, self._places)

    def upgraded(self, transport: asyncio.Transport, caller: Caller, rest: bytes) -> None:
        """Go on with a live connection."""
        session = LiveProtocol(self.app, self._live, caller, changed=self._session_changed)
        self._upgraded.add(session)
        session.adopt(transport, rest, within=self.deadlines.head)

    def websocket(self, transport: asyncio.Transport, caller: Caller, rest: bytes) -> None:
        """Go on with a WebSocket."""
        from claude_peers.gateway.websocket import WebSocketProtocol

        socket = WebSocketProtocol(
            self.app, self._live, caller, deadlines=self.deadlines, ended=self._upgraded.discard
        )
        self._upgraded.add(socket)
        socket.adopt(transport, rest)

    def events(self, caller: Caller, head: Head) -> Callable[[asyncio.Transport], None]:
        """Return what goes on with a stream of events.

        Raises:
            ClaudePeersError: there is none to be had.
        """
        from claude_peers.gateway.events import EventsProtocol, open_hand

        hand = open_hand(self.app, caller, head)
        self._make_sure(caller, live=False, holder=caller.token_hash or hand.owner)

        def begin(transport: asyncio.Transport) -> None:
            stream = EventsProtocol(
                self.app, self._live, caller, hand, ended=self._upgraded.discard
            )
            self._upgraded.add(stream)
            stream.adopt(transport)

        return begin

    def _session_changed(self, session: LiveProtocol, attached: bool) -> None:  # noqa: FBT001 - a state
        """Keep the list of sessions."""
        if not attached:
            self._upgraded.discard(session)
        if attached and session not in self.sessions:
            self.sessions.append(session)
        elif not attached and session in self.sessions:
            self.sessions.remove(session)
        self.attached()

    def _strangers(self) -> int:
        return sum(each.caller.stranger for each in self._connections)


def _is_session(connection: Upgraded) -> bool:
    """Whether it is the live connection of a session of this user's on this machine."""
    return isinstance(connection, LiveProtocol) and _is_own(connection.caller)


def _is_own(caller: Caller) -> bool:
    return not (caller.machine or caller.stranger)


def _watch(connected: socket.socket) -> None:
    """Let the system notice when another machine has vanished without a word."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
