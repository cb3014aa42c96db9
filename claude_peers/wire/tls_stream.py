"""TLS under an asyncio protocol, which sees a transport like any other.

asyncio's own TLS needs `ssl` before asyncio is loaded (`host.lean`), and counts an answer as
written before the system has it. Here the socket's transport keeps its buffer and its limits, and
only what passes through is another: so the deadlines, back-pressure and receipts of a protocol
hold as they do without TLS.
"""

import asyncio
from typing import Any

from claude_peers.core.errors import ClaudePeersError
from claude_peers.wire.tls import Tls


class TlsTransport(asyncio.Transport):
    """What the protocol writes to.

    Args:
        raw: the socket's transport.
        stream: the protocol that the socket has.
    """

    def __init__(self, raw: asyncio.Transport, stream: "TlsStream") -> None:
        super().__init__()
        self._raw = raw
        self._stream = stream

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `tls`, or what the socket's transport knows."""
        return self._stream.tls if name == "tls" else self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol go on."""
        assert isinstance(protocol, asyncio.Protocol)  # noqa: S101 - of bytes, like the first
        self._stream.inner = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._stream.inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, encrypted; on a broken connection it is dropped."""
        if not self._raw.is_closing():
            self._raw.write(self._stream.tls.send(bytes(data)))

    def write_eof(self) -> None:
        """Say that no more comes."""
        self._raw.write(self._stream.tls.end())
        self._raw.write_eof()

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def close(self) -> None:
        """Send what is buffered, then hang up."""
        if not self._raw.is_closing():
            self._raw.write(self._stream.tls.end())
        self._raw.close()

    def abort(self) -> None:
        """Hang up at once."""
        self._raw.abort()

    def is_closing(self) -> bool:
        """Whether it hangs up."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether it reads."""
        return self._raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from how many unsent bytes on the protocol is told to pause."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the system has not taken yet."""
        return self._raw.get_write_buffer_size()


class TlsStream(asyncio.Protocol):
    """What the socket's transport talks to.

    Args:
        inner: the protocol that sees what is inside.
        tls: this end.
        client: whether it speaks first.

    Attributes:
        established: for a client, done once the other end is known to be the right one.
    """

    def __init__(self, inner: asyncio.Protocol, tls: Tls, *, client: bool = False) -> None:
        self.inner = inner
        self.tls = tls
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = client
        self._raw: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the protocol at once, whose deadlines count from now on."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP connection's
        self._raw = transport
        if self._client:
            transport.write(self.tls.begin())
        self.inner.connection_made(TlsTransport(transport, self))

    def data_received(self, data: bytes) -> None:
        """Pass on what is inside."""
        try:
            inside = self.tls.receive(data)
        except (OSError, ClaudePeersError) as error:
            self._settle(error)
            self._raw.abort()
            return
        self._raw.write(self.tls.pending())
        if self.tls.established:
            self._settle(None)
        if inside:
            self.inner.data_received(inside)
        if self.tls.ended:
            self._raw.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, and whoever waits for the other end."""
        self._settle(exc or ConnectionResetError("hung up"))
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The other end reads slowly."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """It has read."""
        self.inner.resume_writing()

    def _settle(self, error: Exception | None) -> None:
        if self.established.done():
            return
        if error is None:
            self.established.set_result(None)
        else:
            self.established.set_exception(error)
            self.established.exception()  # whether anybody waits or not, it has been noticed
