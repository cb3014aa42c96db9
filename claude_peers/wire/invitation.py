"""The join string: one word that carries all a machine needs to join a broker.

`cp1_` and base64url of: 4 bytes of checksum, the SHA-256 of the broker's certificate, a one-time
code, and the broker's addresses as `HOST:PORT,HOST:PORT`. The checksum is against half a paste,
not against anybody; who holds the string may join, once.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from claude_peers.core.errors import BadRequestError

PREFIX: Final = "cp1_"
PIN: Final = 32
"""Bytes of a certificate's SHA-256."""
CODE: Final = 16
"""Bytes of a one-time code."""
MOST: Final = 1024
"""Characters of a join string."""
_SUM = 4
_HEAD = _SUM + PIN + CODE
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):(?P<port>[0-9]{1,5})"
)
_MOST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens; `host` is an address or a name, an IPv6 one without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a join string says.

    Attributes:
        addresses: where the broker listens, the first to be tried first.
        pin: SHA-256 of its certificate.
        code: good for one join.
    """

    addresses: tuple[Address, ...]
    pin: bytes
    code: str

    def __str__(self) -> str:
        places = ",".join(map(str, self.addresses)).encode()
        content = self.pin + base64.urlsafe_b64decode(self.code + "==") + places
        return PREFIX + _text(_checksum(content) + content)


def make_code(random: bytes) -> str:
    """Return a one-time code of `CODE` random bytes."""
    return _text(random)


def read_address(text: str) -> Address | None:
    """Return the address in `HOST:PORT`, None if it is none."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) <= _MOST_PORT:
        return None
    return Address(found["host"].strip("[]"), int(found["port"]))


def read(text: str) -> Invitation:
    """Return what a join string says.

    Raises:
        BadRequestError: it is none, of a later version, or not whole.
    """
    word = text.strip()
    encoded = word.removeprefix(PREFIX)
    if not word.startswith(PREFIX) or len(word) > MOST:
        raise _unusable("it does not begin with cp1_, or is too long")
    try:
        raw = base64.b64decode(_padded(encoded), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _unusable("it has characters that do not belong there") from None
    content = raw[_SUM:]
    if _text(raw) != encoded or len(raw) <= _HEAD or raw[:_SUM] != _checksum(content):
        raise _unusable("a part of it is missing")
    addresses = [read_address(each) for each in raw[_HEAD:].decode("ascii", "replace").split(",")]
    known = tuple(each for each in addresses if each is not None)
    if len(known) < len(addresses):
        raise _unusable("it names no address")
    return Invitation(addresses=known, pin=content[:PIN], code=_text(content[PIN : PIN + CODE]))


def _unusable(why: str) -> BadRequestError:
    return BadRequestError(
        f"This is no join string: {why}",
        "Copy the whole word that `claude-peers invite NAME` printed.",
    )


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_SUM]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _padded(text: str) -> bytes:
    return text.encode("ascii") + b"=" * (-len(text) % 4)
