"""TLS between machines, without I/O: bytes in, bytes out, like `h11`.

Only TLS 1.3, and nothing is left to certificate authorities: a client knows the SHA-256 of the
broker's certificate from its invite, and compares it before it lets the first byte of the
application through. No tickets and no resumption: each connection shows the certificate anew.

This module loads `ssl`, so nobody imports it who talks to this machine only.
"""

import contextlib
import hashlib
import hmac
import ssl
from typing import Final

from claude_peers.core.errors import NoBrokerError

_CHUNK = 256 * 1024
PIN_CHANGED: Final = "pin_changed"


class PinChangedError(NoBrokerError):
    """Whoever answers does not have the certificate that the invite named."""

    code = PIN_CHANGED

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where} shows another certificate than the one this machine was invited by; "
            "nothing was sent to it",
            "If the broker's state folder was replaced, ask for a new invite and `claude-peers "
            "join` again; if not, somebody may be in between.",
        )


def server_context(certificate: str) -> ssl.SSLContext:
    """Return the settings of a broker whose key and certificate lie in one file.

    Raises:
        OSError: they cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate)
    return context


def client_context() -> ssl.SSLContext:
    """Return the settings of a client, which compares the certificate itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Tls:
    """One end of a connection.

    Args:
        context: from `server_context` or `client_context`.
        where: the other end, for messages.
        pin: the SHA-256 that its certificate must have; None for a server.

    Attributes:
        established: whether application bytes may be sent; for a client: to the right one.
        ended: whether the other side will send no more.
    """

    def __init__(
        self, context: ssl.SSLContext, *, where: str = "", pin: bytes | None = None
    ) -> None:
        self.established = False
        self.ended = False
        self._said_goodbye = False
        self._where = where
        self._pin = pin
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_side=pin is None)

    @property
    def binding(self) -> bytes:
        """What both ends of this connection know, and nobody at the end of another.

        The `Finished` message of the handshake, an HMAC over all of it under its own keys.
        """
        found = self._object.get_channel_binding("tls-unique")
        if not found:
            raise ssl.SSLError("this TLS library does not tell what a connection is known by")
        return found

    def begin(self) -> bytes:
        """Return what a client says first."""
        self._shake_hands()
        return self._out.read()

    def receive(self, data: bytes) -> bytes:
        """Take what came, return what it says; then send `pending`.

        Raises:
            OSError: this is not TLS, or it was tampered with.
            PinChangedError: the certificate is another; nothing may be sent.
        """
        if self._said_goodbye:
            return b""  # whatever still comes is for nobody
        self._in.write(data)
        if not self.established and not self._shake_hands():
            return b""
        parts = []
        try:
            while part := self._object.read(_CHUNK):
                parts.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        return b"".join(parts)

    def send(self, data: bytes) -> bytes:
        """Return what to send for `data`."""
        if not self.established:
            raise ssl.SSLError("nothing is sent before the other end is known")
        for start in range(0, len(data), _CHUNK):
            self._object.write(data[start : start + _CHUNK])
        return self._out.read()

    def pending(self) -> bytes:
        """Return what the protocol itself has to send."""
        return self._out.read()

    def end(self) -> bytes:
        """Return the word that no more will be sent."""
        if self.established and not self._said_goodbye:
            self._said_goodbye = True
            # It wants to read the other side's as well, for which nobody waits.
            with contextlib.suppress(ssl.SSLError):
                self._object.unwrap()
        return self._out.read()

    def _shake_hands(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        if self._pin is not None:
            shown = self._object.getpeercert(binary_form=True) or b""
            if not hmac.compare_digest(hashlib.sha256(shown).digest(), self._pin):
                self._out.read()  # not even the end of the handshake leaves
                raise PinChangedError(self._where)
        self.established = True
        return True
