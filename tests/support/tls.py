"""Certificates for tests, and two ends of TLS without a wire."""

import contextlib
import functools
import tempfile

from claude_peers.host import certificate
from claude_peers.host.certificate import Certificate
from claude_peers.wire.tls import Tls, client_context, server_context


@functools.cache
def shown(which: int = 0) -> Certificate:
    """Return a broker's certificate; another one for each number."""
    folder = _FOLDERS.enter_context(tempfile.TemporaryDirectory(prefix=f"tls{which}-"))
    return certificate.ensure(folder)


_FOLDERS = contextlib.ExitStack()


def ends(*, pin: bytes | None = None, which: int = 0) -> tuple[Tls, Tls]:
    """Return client and broker, who have not spoken yet."""
    theirs = shown(which)
    pinned = theirs.pin if pin is None else pin
    return Tls(client_context(), where="there:1", pin=pinned), Tls(server_context(theirs.path))


def shake_hands(client: Tls, server: Tls) -> None:
    """Let both establish the connection."""
    ahead = client.begin()
    while not (client.established and server.established):
        server.receive(ahead)
        client.receive(server.pending())
        ahead = client.pending()
        if client.established and ahead:
            server.receive(ahead)
