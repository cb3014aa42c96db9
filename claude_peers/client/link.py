"""The live connection to a broker of ours, from the session's side.

The broker proves itself on the very connection that carries the requests; nothing is told to
whoever merely owns the port.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from claude_peers.core.errors import BadRequestError, NoBrokerError
from claude_peers.core.models import Process
from claude_peers.wire import frames, proof
from claude_peers.wire.codec import load_object

ADDRESS = "127.0.0.1"
HANDSHAKE = 3.0
"""Seconds a broker has to answer the upgrade."""
_HEAD = 8 * 1024
"""Bytes of the answer to the upgrade."""

Answered = Callable[[int, int, Any], None]
Pushed = Callable[[dict[str, Any], dict[str, Any] | None], None]
Settled = Callable[[list[int]], None]


class Link(Protocol):
    """A connection that carries requests one way and pushes the other.

    Attributes:
        answered: called with number, status and body of an answer.
        pushed: called with a message and what is known of its sender.
        settled: called with the ids of messages that another server of the agent has read.
        beat: called with each sign of life of the broker, every few seconds.
        epoch: the broker's epoch, None for brokers that have none.
        leader: the broker's process, as far as it is known.
        standby: whether this node has been named the standby.
        keeps: whether the broker keeps what it pushes until it is acknowledged.
    """

    answered: Answered
    pushed: Pushed
    settled: Settled
    beat: Callable[[], None]
    epoch: int | None
    leader: Process | None
    standby: bool
    keeps: bool

    def send(self, number: int, operation: str, body: dict[str, Any]) -> None:
        """Send a request; on a broken connection nothing happens but that it ends."""
        ...

    def prove(self, secret: bytes) -> str | None:
        """Return the proof of the secret that belongs into this connection's registration."""
        ...

    async def ended(self) -> None:
        """Wait until the connection is over."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class NotOursError(NoBrokerError):
    """Something listens that does not speak our protocol, or has no proof for it."""


class LiveLink(asyncio.Protocol):
    """A Link over an upgraded HTTP connection (`wire.frames`)."""

    def __init__(self) -> None:
        self.answered: Answered = lambda _number, _status, _body: None
        self.pushed: Pushed = lambda _message, _sender: None
        self.settled: Settled = lambda _ids: None
        self.on_standby: Callable[[], None] = lambda: None
        self.beat: Callable[[], None] = lambda: None
        self.epoch: int | None = None
        self.leader: Process | None = None
        self.standby = False
        self.keeps = True
        self.heard = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._upgraded: asyncio.Future[bytes] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._buffer = bytearray()
        self._challenge = ""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send small frames at once."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP client's
        self._transport = transport
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Take every complete frame."""
        self.heard = self._loop.time()
        self._buffer += data
        if not self._open:
            self._take_head()
            return
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._take(line)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if not self._upgraded.done():
            self._upgraded.set_exception(exc or ConnectionResetError("hung up"))
            self._upgraded.exception()  # whether anybody waits or not, it has been noticed
        if not self._ended.done():
            self._ended.set_result(None)

    def send(self, number: int, operation: str, body: dict[str, Any]) -> None:
        """See `Link`."""
        self._transport.write(frames.request(number, operation, body))

    def prove(self, secret: bytes) -> str | None:
        """See `Link`."""
        return proof.client_proof(secret, self._challenge)

    async def ended(self) -> None:
        """See `Link`."""
        await asyncio.shield(self._ended)

    def close(self) -> None:
        """See `Link`."""
        self._transport.close()

    def give_up(self) -> None:
        """End a connection that is half open: what nobody reads must not keep it."""
        self._transport.abort()

    async def upgrade(
        self, where: str, secret: bytes, signed: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Ask for the live connection and verify who answers.

        Args:
            where: `HOST:PORT` of the broker.
            secret: what it has to prove to know.
            signed: further headers, by which this machine is known to it.

        Raises:
            NotOursError: no broker of this user, or none of ours.
            NoBrokerError: it has no place for one more session.
        """
        ends = (self._transport.get_extra_info(each) for each in ("sockname", "peername"))
        if len(set(ends)) == 1:
            # TCP lets a socket connect to itself when its own port is the one it dials.
            raise ConnectionRefusedError
        nonce = os.urandom(16).hex()
        more = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        head = (
            f"GET {frames.LIVE_PATH} HTTP/1.1\r\nHost: {where}\r\n"
            f"Connection: Upgrade\r\nUpgrade: {frames.PROTOCOL}\r\n"
            f"{proof.NONCE_HEADER}: {nonce}\r\n{more}\r\n"
        )
        self._transport.write(head.encode())
        status, headers = _parse(await self._upgraded)
        if status == 503 and _crowded(bytes(self._buffer)):  # noqa: PLR2004 - Service Unavailable
            # In our words: who has proved nothing yet has nothing to say to an agent.
            raise NoBrokerError(
                f"What listens on {where} has no place for one more connection",
                "End sessions that nobody needs, or let the broker open more files (`ulimit -Hn` "
                "where it is started).",
            )
        epoch = proof.proven_epoch(secret, nonce, headers.get(proof.PROOF_HEADER, ""))
        if status != 101 or epoch is None:  # noqa: PLR2004 - HTTP's Switching Protocols
            raise NotOursError(
                f"What listens on {where} is no claude-peers of yours",
                "End it, or choose another port with CLAUDE_PEERS_PORT.",
            )
        self.epoch = epoch
        self._challenge = headers.get(proof.CHALLENGE_HEADER, "")
        self._open = True
        self.data_received(b"")

    def _take_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0 and not self._upgraded.done():
            self._upgraded.set_result(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        elif len(self._buffer) > _HEAD:
            self._transport.abort()

    def _take(self, line: bytes) -> None:
        try:
            frame = load_object(line)
        except BadRequestError:
            self._transport.abort()
            return
        match frame:
            case {"message": dict(message)}:
                self.pushed(message, frame.get("from"))
            case {"re": int(number), "status": int(status), "body": body}:
                self.answered(number, status, body)
            case {"settled": [*ids]}:
                self.settled([number for number in ids if isinstance(number, int)])
            case {"standby": _}:
                self.standby = True
                self.on_standby()
            case {"leader": {"pid": int(pid), "started": str(started)}}:
                self.leader = Process(pid=pid, started=started)
            case {"ping": _}:
                self.beat()
            case _:  # something that later versions say
                pass


async def connect(port: int, secret: bytes) -> LiveLink:
    """Connect to the broker on `port` and verify it.

    Raises:
        OSError: nobody answers.
        NotOursError: somebody else does.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(HANDSHAKE):
        transport, link = await loop.create_connection(LiveLink, ADDRESS, port)
        try:
            await link.upgrade(f"{ADDRESS}:{port}", secret)
        except BaseException:
            transport.abort()
            raise
    return link


def _crowded(body: bytes) -> bool:
    """Whether a refusal is for want of places, and not because the broker hands over."""
    try:
        return load_object(body).get("code") == "crowded"
    except BadRequestError:
        return False


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    status = int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0
    pairs = (line.partition(":") for line in lines)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
