"""Requests about other machines as records, and machines as the JSON that travels."""

from dataclasses import dataclass, field
from typing import Any

from claude_peers.core.machines import Machine, Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteRequest:
    """Let another machine join, once.

    Attributes:
        name: what its peers' host is called here.
        ttl_ms: how long the invite is good; none or 0 is a day, a week is the most.
        addresses: where it reaches this broker (`HOST:PORT`), before where that listens.
    """

    name: str = field(metadata={"form": "name"})
    ttl_ms: int | None = None
    addresses: tuple[str, ...] = field(default=(), metadata={"form": "addresses"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRequest:
    """Anything that needs no more than the machine it is about."""

    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """Use an invite: `token_hash` is the SHA-256 (hexadecimal) of the token to be shown later."""

    code: str
    token_hash: str = field(metadata={"form": "sha256"})


def machine_view(
    machine: Machine, *, expired: bool, expires_at: str | None, peers: int
) -> dict[str, Any]:
    """Return another machine as the user sees it, without anything it could be impersonated by.

    Args:
        machine: which one.
        expired: whether the time of its invite or of its token is over.
        expires_at: when it is, ISO 8601; None if unknown.
        peers: how many of its peers are there.
    """
    lasts = machine.membership is not Membership.REVOKED
    return {
        "name": machine.name,
        "state": "expired" if lasts and expired else machine.membership.value,
        "peers": peers,
        "invited_at": machine.invited_at,
        "expires_at": expires_at,
        "joined_at": machine.joined_at,
        "revoked_at": machine.revoked_at,
    }
