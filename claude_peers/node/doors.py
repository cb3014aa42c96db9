"""The TLS listeners of a leader: one for each address that CLAUDE_PEERS_BIND names."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from claude_peers.broker.machines import Doors, NoListenerError
from claude_peers.core.errors import ClaudePeersError
from claude_peers.gateway.server import Server
from claude_peers.host import addresses, certificate
from claude_peers.settings import Settings
from claude_peers.wire.invitation import Address

if TYPE_CHECKING:
    from ssl import SSLContext

log = logging.getLogger(__name__)

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - never bound: it stands for the addresses there are


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is none of ours, or somebody has the port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform == "win32":  # pragma: no cover - Windows
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # After a take-over the old connections linger in TIME_WAIT on this port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


class RemoteDoors:
    """Opens them, and again those of addresses that come later.

    What is in the way of one keeps nobody out who comes by another way: it is told by `status`.

    Args:
        settings: which addresses.
        server: what accepts there.
        port: the port, the same as on this machine.

    Attributes:
        listeners: the sockets, by address.
    """

    def __init__(self, settings: Settings, server: Server, *, port: int) -> None:
        self.listeners: dict[str, socket.socket] = {}
        self._settings = settings
        self._server = server
        self._port = port
        self._pin = b""
        self._problem: ClaudePeersError | None = None
        self._opening: asyncio.Task[None] | None = None

    def told(self) -> Doors:
        """Return what is open."""
        places = tuple(str(Address(each, self._port)) for each in self.listeners)
        return Doors(addresses=places, pin=self._pin, problem=self._problem)

    def begin(self, troubled: Callable[[ClaudePeersError], None]) -> None:
        """Open in the background, which keeps nobody on this machine waiting.

        Args:
            troubled: told what is in the way, if anything is.
        """
        self._opening = asyncio.ensure_future(self._open_first(troubled))

    async def opened(self) -> None:
        """Wait until that has been tried."""
        if self._opening is not None:
            await asyncio.shield(self._opening)

    def close(self) -> None:
        """Open no more; the server closes what is open."""
        if self._opening is not None:
            self._opening.cancel()

    async def open(self) -> None:
        """Listen wherever it is wanted and not done yet."""
        before, problem = self._problem, None
        missing = [each for each in self._wanted() if each not in self.listeners]
        if missing:
            try:
                problem = await self._listen(missing)
            except ClaudePeersError as error:
                problem = error
        self._problem = problem
        if problem is not None and str(problem) != str(before):
            log.warning("other machines cannot reach this broker: %s", problem)

    async def _open_first(self, troubled: Callable[[ClaudePeersError], None]) -> None:
        await self.open()
        if self._problem is not None:
            troubled(self._problem)

    def _wanted(self) -> list[str]:
        named = self._settings.bind_addresses
        return addresses.own() if EVERY_ADDRESS in named else list(named)

    async def _listen(self, missing: list[str]) -> ClaudePeersError | None:
        # On a thread: making a certificate, and loading OpenSSL, takes longer than a beat.
        context, self._pin = await asyncio.to_thread(_identity, self._settings.state_folder)
        problem = None
        for address in missing:
            try:
                listener = listen(address, self._port)
            except OSError as error:
                problem = _occupied(address, self._port, error)
                continue
            self.listeners[address] = listener
            await self._server.start_tls(listener, context)
            log.info("other machines reach this broker on %s", Address(address, self._port))
        return problem


def _identity(folder: str) -> "tuple[SSLContext, bytes]":
    """Return what the broker shows other machines, and its pin."""
    from claude_peers.wire.tls import server_context

    shown = certificate.ensure(folder)
    try:
        return server_context(shown.path), shown.pin
    except OSError as error:
        raise NoListenerError(
            f"{shown.path} cannot be used: {error}",
            "Delete it and start again: a new one is made, and machines are invited anew.",
        ) from error


def _occupied(address: str, port: int, error: OSError) -> NoListenerError:
    own = ", ".join(addresses.own()) or "none but 127.0.0.1"
    return NoListenerError(
        f"This broker cannot listen on {Address(address, port)}: {error.strerror}",
        f"Set CLAUDE_PEERS_BIND to an address of this machine ({own}) whose port is free.",
    )
