"""The brokers on other machines that this one has joined, kept in its state folder."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from claude_peers.core.errors import ClaudePeersError, StoreError
from claude_peers.host import files
from claude_peers.wire import signature
from claude_peers.wire.invitation import PIN, Address, Invitation, read_address

FILE: Final = "joined.json"


class NotJoinedError(ClaudePeersError):
    """A broker on another machine was asked for to which nobody has invited us."""

    code = "not_joined"

    def __init__(self, where: str, known: list[str]) -> None:
        others = f" It has joined {', '.join(known)}." if known else ""
        super().__init__(
            f"This machine has not joined a broker at {where}, so nothing was sent there",
            "Run `claude-peers invite NAME` on that machine and `claude-peers join` here, or unset "
            f"CLAUDE_PEERS_BROKER_URL.{others}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A broker on another machine, and what it takes to use it.

    Attributes:
        address: where.
        pin: SHA-256 of its certificate.
        token: this machine's; while it joins, the invite's code.
        name: what it calls this machine.
        clock: seconds since the epoch.
    """

    address: Address
    pin: bytes
    token: str = field(repr=False)
    name: str = ""
    clock: Callable[[], float] = field(repr=False, compare=False)

    @property
    def secret(self) -> bytes:
        """What both sides prove to know (`wire.proof`)."""
        return self.token.encode()


class Signer:
    """Signs the requests of one connection.

    Args:
        joined: the broker.
        binding: what is known at the two ends of the connection only.
    """

    def __init__(self, joined: Joined, binding: bytes) -> None:
        self._joined = joined
        self._binding = binding
        self._number = 0

    def sign(self, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """Return the header of the next request."""
        self._number += 1
        value = signature.sign(
            self._joined.token,
            signature.Target(method, path, self._binding),
            at=self._joined.clock(),
            number=self._number,
            digest=signature.digest_of(body),
        )
        return {signature.HEADER: value}


def find(folder: str, where: str, clock: Callable[[], float]) -> Joined:
    """Return the broker at `where` (`HOST:PORT`).

    Raises:
        NotJoinedError: this machine has not joined it.
        StoreError: the record cannot be read.
    """
    known = _read(folder)
    address, entry = read_address(where), known.get(where)
    if address is None or entry is None:
        raise NotJoinedError(where, sorted(known))
    pin = bytes.fromhex(entry["pin"])
    return Joined(address=address, pin=pin, token=entry["token"], name=entry["name"], clock=clock)


def keep(folder: str, invitation: Invitation, *, token: str, name: str) -> None:
    """Remember a broker by each of its addresses, in place of what was known of them.

    Raises:
        StoreError: it cannot be recorded.
    """
    files.private_folder(folder)
    entry = {"pin": invitation.pin.hex(), "token": token, "name": name}
    known = _read(folder) | {str(address): entry for address in invitation.addresses}
    files.write_private(os.path.join(folder, FILE), json.dumps(known, indent=1).encode())


def _read(folder: str) -> dict[str, dict[str, str]]:
    path = os.path.join(folder, FILE)
    if not os.path.isdir(folder) or (told := files.read_private(path)) is None:
        return {}
    try:
        known = {str(where): _entry(entry) for where, entry in json.loads(told).items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise StoreError(
            f"{path} is damaged", "Delete it, and join the brokers on other machines anew."
        ) from None
    return known


def _entry(told: Any) -> dict[str, str]:
    """Return what is known of one broker, if it can be used."""
    entry = {each: str(told[each]) for each in ("pin", "token", "name")}
    if len(bytes.fromhex(entry["pin"])) != PIN:
        raise ValueError(entry["name"])
    return entry
