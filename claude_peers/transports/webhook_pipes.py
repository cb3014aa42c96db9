"""Connections that a post goes over: plain, and in TLS.

TLS is done here over plain bytes: the leader's event loop is loaded without OpenSSL
(`host.lean`), and has no TLS of its own. It is loaded with the first https address.
"""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl import SSLContext

CHUNK = 16 * 1024


class Pipe:
    """A plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def open(self) -> None:
        """Nothing to agree on."""

    async def read(self) -> bytes:
        """Return what came, b"" at the end."""
        return await self._reader.read(CHUNK)

    def write(self, data: bytes) -> None:
        """Write, or buffer what cannot be written now."""
        self._writer.write(data)

    def abort(self) -> None:
        """Hang up, whatever has not been written."""
        self._writer.transport.abort()


class TlsPipe(Pipe):
    """A connection in TLS to a host whose certificate the system trusts."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        host: str,
        context: "SSLContext",
    ) -> None:
        import ssl

        super().__init__(reader, writer)
        self._wants = ssl.SSLWantReadError
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_hostname=host)

    async def open(self) -> None:
        """Shake hands.

        Raises:
            OSError: the certificate is not trusted, or this is not TLS.
            EOFError: the other side hung up.
        """
        while not self._shakes_hands():
            await self._turn()
        super().write(self._out.read())

    async def read(self) -> bytes:
        """Return what came, b"" at the end."""
        while True:
            try:
                return self._object.read(CHUNK)
            except self._wants:
                await self._turn()

    def write(self, data: bytes) -> None:
        """Write, or buffer what cannot be written now."""
        self._object.write(data)
        super().write(self._out.read())

    def _shakes_hands(self) -> bool:
        try:
            self._object.do_handshake()
        except self._wants:
            return False
        return True

    async def _turn(self) -> None:
        super().write(self._out.read())
        data = await super().read()
        if not data:
            raise EOFError
        self._in.write(data)


def trusted() -> "SSLContext":
    """Return the settings by which the system's certificates are trusted."""
    import ssl

    return ssl.create_default_context()
