"""How another machine signs its requests: one header, good once and on one connection only.

The header holds the machine's token, which only travels inside TLS to the pinned certificate, and
an HMAC under it over all that makes the request: method, path, the digest of the body, the time,
its number on the connection, and the connection's own binding (`wire.tls`). So a recorded request
fits no other connection, not even one to the next broker, and no second time the same one.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

HEADER: Final = "x-claude-peers-machine"
_FORM = re.compile(
    r"1 (?P<token>[A-Za-z0-9_-]{22,86}) (?P<at>[0-9]{1,12}) (?P<number>[0-9]{1,9})"
    r" (?P<digest>[0-9a-f]{64}) (?P<mac>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a signature is for: a method and path, on the connection that has this binding."""

    method: str
    path: str
    binding: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A machine's signature under one request.

    Attributes:
        token: its token, or the one-time code of its invite.
        at: when it was signed, seconds since the epoch.
        number: ascending on one connection.
        digest: SHA-256 of the body, hexadecimal.
        mac: what only the token's holder can make.
    """

    token: str
    at: int
    number: int
    digest: str
    mac: str

    def fits(self, target: Target) -> bool:
        """Whether it was made for this request's head, on this connection."""
        made = sign(self.token, target, at=self.at, number=self.number, digest=self.digest)
        return hmac.compare_digest(made.rpartition(" ")[2], self.mac)

    def covers(self, body: bytes) -> bool:
        """Whether it was made for this body."""
        return hmac.compare_digest(digest_of(body), self.digest)


def digest_of(body: bytes) -> str:
    """Return the digest by which a signature names a body."""
    return hashlib.sha256(body).hexdigest()


def sign(token: str, target: Target, *, at: float, number: int, digest: str) -> str:
    """Return the header's value."""
    when, of = (str(int(at)), str(number)), target.binding.hex()
    signed = "\n".join((target.method, target.path, *when, digest, of))
    key = hashlib.sha256(b"claude-peers request\n" + token.encode()).digest()
    mac = hmac.new(key, signed.encode("utf-8", "replace"), "sha256").hexdigest()
    return f"1 {token} {int(at)} {number} {digest} {mac}"


def read(value: str) -> Signature | None:
    """Return the signature in a header, None if it is none."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    return Signature(
        token=found["token"],
        at=int(found["at"]),
        number=int(found["number"]),
        digest=found["digest"],
        mac=found["mac"],
    )
