"""A blocking connection to a broker on another machine, which is verified before anything is said.

Loaded only where one is used, for it loads OpenSSL.
"""

import socket
import ssl

from claude_peers.client.exchange import CHUNK, Link, left
from claude_peers.client.joined import Joined, Signer
from claude_peers.core.errors import NoBrokerError
from claude_peers.wire.tls import Tls, client_context


class RemoteLink(Link):
    """A blocking connection, made on construction.

    Raises:
        NoBrokerError: what listens is not the broker that this machine was invited to.
        OSError: as `Link` does.
    """

    def __init__(self, joined: Joined, *, deadline: float) -> None:
        self._joined = joined
        self._tls = tls_of(joined)
        super().__init__(joined.address.port, deadline=deadline)
        self._signer = Signer(joined, self._tls.binding)

    def signed(self, method: str, path: str, body: bytes) -> dict[str, str]:
        """See `Link`."""
        return self._signer.sign(method, path, body)

    def _dial(self, port: int, deadline: float) -> socket.socket:
        dialled = socket.create_connection(
            (self._joined.address.host, port), timeout=left(deadline)
        )
        try:
            dialled.sendall(self._tls.begin())
            while not self._tls.established:
                dialled.settimeout(left(deadline))
                self._tls.receive(_more(dialled))
                dialled.sendall(self._tls.pending())
        except ssl.SSLError as error:
            dialled.close()
            raise not_tls(self._joined, error) from error
        except BaseException:
            dialled.close()
            raise
        return dialled

    def _put(self, data: bytes) -> None:
        super()._put(self._tls.send(data))

    def _take(self, deadline: float) -> bytes:
        while True:
            data = super()._take(deadline)
            inside = self._tls.receive(data) if data else b""
            if inside or not data or self._tls.ended:
                return inside


def _more(dialled: socket.socket) -> bytes:
    if data := dialled.recv(CHUNK):
        return data
    raise ConnectionAbortedError


def not_tls(joined: Joined, error: ssl.SSLError) -> NoBrokerError:
    """Return what to tell when no TLS connection comes about."""
    return NoBrokerError(
        f"What listens on {joined.address} does not speak TLS 1.3 with us: {error.reason or error}",
        "See what listens there: `claude-peers machines` on the broker's machine tells its ports.",
    )


def tls_of(joined: Joined) -> Tls:
    """Return this end of a connection to a broker."""
    return Tls(client_context(), where=str(joined.address), pin=joined.pin)
