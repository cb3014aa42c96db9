"""A simulated loopback: ordered, delayed, bounded, and broken by the seed.

What one end writes arrives in order and in pieces, or not at all from some byte on: a connection
that breaks loses its tail, and each end learns of it at a time of its own. What its reader does
not take stays in the way, so that a writer is told to pause.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from simulation.world import Process, World, current

ADDRESS = "127.0.0.1"
_EOF = b""


class Socket:
    """What is done to the socket beneath a connection."""

    def __init__(self, end: "End") -> None:
        self._end = end

    def setsockopt(self, *_: Any) -> None:
        """Nothing depends on it here."""

    def shutdown(self, _how: int) -> None:
        self._end.write_eof()


class End(asyncio.Transport):
    """One end of a connection: a transport, and the buffers of the system beneath it."""

    def __init__(self, network: "Network", owner: Process, me: int, other: int) -> None:
        super().__init__({"sockname": (ADDRESS, me), "peername": (ADDRESS, other)})
        self.owner = owner
        self.peer: End
        self.protocol: Any = None
        self.dialled = other < me
        self.room = network.room()
        self.broken = False
        self._network = network
        self._rng = network.world.rng
        self._closing = False
        self._ended = False  # our side: nothing more is written
        self._lost = False
        self._reading = True
        self._paused_protocol = False
        self._high = 64 * 1024
        self._incoming: deque[bytes] = deque()
        self._under_way = 0  # bytes written that the other side has not taken
        self._arrives = 0.0
        self._scheduled = False

    def get_extra_info(self, name, default=None):
        return Socket(self) if name == "socket" else super().get_extra_info(name, default)

    def set_protocol(self, protocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        self._high = 64 * 1024 if high is None else high

    def get_write_buffer_size(self) -> int:
        return max(0, self._under_way - self.room)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._wake()

    def write(self, data: bytes) -> None:
        if self._closing or self._ended or not data:
            return
        self._under_way += len(data)
        self._send(bytes(data))
        if self.get_write_buffer_size() > self._high and not self._paused_protocol:
            self._paused_protocol = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        if not self._ended:
            self._ended = True
            self._send(_EOF)

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self.owner.soon(self._lose, None)

    def abort(self) -> None:
        self.close()

    def sever(self) -> None:
        """Lose what is under way both ways; each end learns of it a while later."""
        for end in (self, self.peer):
            end.broken = True
            end._network.later(end._rng.choice((0.0, 0.01, 0.5, 4.0)), end._reset)

    def vanish(self) -> None:
        """End with its process; what was written and is still under way may be lost."""
        if self._lost:
            self._network.later(0.0, self.peer._reset)  # if it has not noticed yet
        else:
            self._lost = self._closing = self._ended = True
            self.broken = True
            if self._rng.random() < 0.5:
                self._arrives = 0.0
                self.peer._incoming.clear()
                self._network.later(0.0, self.peer._reset)
            else:
                self._send(_EOF, whole=True)

    # Beneath

    def _send(self, data: bytes, *, whole: bool = False) -> None:
        if self.broken and not whole:
            return
        world = self._network.world
        at = max(self._arrives, world.loop.now + self._network.delay())
        self._arrives = at
        pieces = [data]
        if len(data) > 8 and self._rng.random() < self._network.splits:
            cut = self._rng.randrange(1, len(data))
            pieces = [data[:cut], data[cut:]]
        for piece in pieces:
            world.loop.call_at(at, self._arrived, piece, context=world.kernel.context)

    def _arrived(self, data: bytes) -> None:
        peer = self.peer
        if peer._lost or (peer.broken and data):
            return
        peer._incoming.append(data)
        peer._wake()

    def _wake(self) -> None:
        if self._incoming and self._reading and not self._scheduled and self.protocol is not None:
            self._scheduled = True
            self.owner.soon(self._read)

    def _read(self) -> None:
        self._scheduled = False
        while self._incoming and self._reading and not self._lost:
            data = self._incoming.popleft()
            if self._closing:
                continue
            if data == _EOF:
                self.protocol.eof_received()
                self.close()
                return
            self.peer._taken(len(data))
            self.protocol.data_received(data)

    def _taken(self, count: int) -> None:
        self._under_way -= count
        if self._paused_protocol and not self._closing and not self.get_write_buffer_size():
            self.owner.soon(self._resume)

    def _resume(self) -> None:
        if self._paused_protocol and not self._closing and not self.get_write_buffer_size():
            self._paused_protocol = False
            self.protocol.resume_writing()

    def _reset(self) -> None:
        """Tell the process that the connection broke."""
        self._ended = True
        if self.protocol is not None and not self._closing:
            self._closing = True
            self.owner.soon(self._lose, ConnectionResetError("broken"))

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._network.ends.pop(self, None)
            self.protocol.connection_lost(error)


class Listener:
    """A listening socket; a stranger's has no protocol, and answers what it likes."""

    def __init__(self, *_: Any) -> None:
        self.owner = current()
        self.network: Network = self.owner.world.network
        self.port = 0
        self.factory: Callable[[], Any] | None = None
        self.waiting: list[End] = []

    def setsockopt(self, *_: Any) -> None:
        """Nothing depends on it here."""

    def bind(self, address: tuple[str, int]) -> None:
        if address[1] in self.network.ports:
            raise OSError(98, "Address already in use")
        self.port = address[1]
        self.network.ports[self.port] = self
        self.owner.main.closers.append(self.close)

    def listen(self, _backlog: int) -> None:
        """It does since it is bound."""

    def getsockname(self) -> tuple[str, int]:
        return ADDRESS, self.port

    def shutdown(self, _how: int) -> None:
        self.close()

    def close(self) -> None:
        if self.network.ports.get(self.port) is self:
            del self.network.ports[self.port]
            for end in self.waiting:
                self.network.later(0.0, end.peer._reset)

    def accept(self) -> None:
        """Let the process take up who has connected."""
        while self.factory is not None and self.waiting:
            end = self.waiting.pop(0)
            self.owner.main.soon(self._made, end)

    def _made(self, end: End) -> None:
        assert self.factory is not None
        end.protocol = self.factory()
        end.protocol.connection_made(end)
        end._wake()


class Stranger(asyncio.Protocol):
    """Somebody else's server: it hangs up, talks nonsense, or says nothing."""

    def __init__(self, manner: str) -> None:
        self._manner = manner
        self._transport: Any = None

    def connection_made(self, transport) -> None:
        self._transport = transport
        if self._manner == "hangs up":
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._manner == "nonsense":
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


class Network:
    """All connections and ports of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ports: dict[int, Listener] = {}
        self.ends: dict[End, None] = {}
        self.slow = world.rng.choice((0.0002, 0.0002, 0.003, 0.05))
        self.splits = world.rng.choice((0.0, 0.1))
        self._rooms = world.rng.choice(((1 << 20,), (1 << 20,), (700, 3000, 1 << 20)))
        self._last = 40_000
        world.loop.connect, world.loop.serve = self.connect, self.serve

    def room(self) -> int:
        return self.world.rng.choice(self._rooms)

    def delay(self) -> float:
        return self.slow * (0.1 + self.world.rng.random())

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.world.loop.call_later(seconds, call, context=self.world.kernel.context)

    async def connect(self, factory, port: int):
        """Connect; the system answers for a process that is stopped or busy."""
        await asyncio.sleep(self.delay())
        listener = self.ports.get(port)
        if listener is None:
            raise ConnectionRefusedError(111, "Connection refused")
        self._last += 1
        mine = End(self, current(), self._last, port)
        other = End(self, listener.owner.main, port, self._last)
        mine.peer, other.peer = other, mine
        for end in (mine, other):
            self.ends[end] = None
            end.owner.closers.append(end.vanish)
        listener.waiting.append(other)
        listener.accept()
        mine.protocol = factory()
        mine.protocol.connection_made(mine)
        return mine, mine.protocol

    def serve(self, factory, listener: Listener) -> Listener:
        listener.factory = factory
        listener.accept()
        return listener

    def occupy(self, port: int, manner: str) -> Listener | None:
        """Let a stranger listen on a port, if nobody does."""
        if port in self.ports:
            return None
        listener = Listener()
        listener.bind((ADDRESS, port))
        self.serve(lambda: Stranger(manner), listener)
        return listener

    def owner(self, peer: tuple[str, int], me: tuple[str, int]) -> Process | None:
        """Return whose end of a connection is at `peer`."""
        for end in self.ends:
            if (end.get_extra_info("sockname"), end.get_extra_info("peername")) == (peer, me):
                return end.owner
        return None
