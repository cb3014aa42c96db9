"""Which other machines may use the broker, and why the rest may not.

A machine is invited under a name, with a code that is good for one join and for some time. It
joins with a token of its own making, of which the broker is told only the hash. Until it is
revoked, it shows the token with each request, in a signature that fits one moment and one
connection only.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from claude_peers.core.errors import ClaudePeersError

INVITE_TTL: Final = 24 * 3600.0
MOST_INVITE_TTL: Final = 7 * 24 * 3600.0
"""Seconds an invite is good for: usually, and at most."""
IDLE: Final = 90 * 24 * 3600.0
"""Seconds after which a machine that did not come has to be invited again."""
NOTED_EVERY: Final = 24 * 3600.0
"""Seconds between two notes of when it came."""
SKEW: Final = 60.0
"""Seconds that the clocks of two machines may differ."""
_AGAIN = "Run `claude-peers invite NAME` on the broker's machine, then `claude-peers join` here."


class Membership(StrEnum):
    """Whether another machine may use this broker."""

    INVITED = "invited"
    JOINED = "joined"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Another machine that was invited; only hashes of what it shows are known.

    Attributes:
        name: what its peers' host is called here.
        code_hash: of the latest invite's one-time code; None once it was revoked.
        expires_at: seconds since the epoch, after which that code is refused.
        token_hash: of the token it joined with, kept so that it can be told of its revocation.
        invited_at, joined_at, revoked_at: ISO 8601, UTC, milliseconds.
        seen_at: seconds since the epoch at which it came, at most a day old; 0 if unknown.
    """

    name: str
    code_hash: str | None = None
    expires_at: float = 0.0
    token_hash: str | None = None
    invited_at: str = ""
    joined_at: str | None = None
    revoked_at: str | None = None
    seen_at: float = 0.0

    @property
    def ends_at(self) -> float | None:
        """When its invite or its token counts no more, unless it is used; None if unknown."""
        if self.membership is Membership.JOINED:
            return self.seen_at + IDLE if self.seen_at else None
        return self.expires_at

    def has_ended(self, now: float) -> bool:
        """Tell whether the time of its invite or of its token is over."""
        return self.ends_at is not None and self.ends_at <= now

    @property
    def membership(self) -> Membership:
        """Whether it may use this broker."""
        if self.token_hash is not None and self.revoked_at is None:
            return Membership.JOINED
        return Membership.REVOKED if self.code_hash is None else Membership.INVITED


class MachineRefusedError(ClaudePeersError):
    """A machine may not use this broker."""

    code = "unknown_machine"
    http_status = 401

    def __init__(
        self, fact: str = "No machine has joined with this token", remedy: str = _AGAIN
    ) -> None:
        super().__init__(fact, remedy)


class MachineRevokedError(MachineRefusedError):
    """It may no longer."""

    code = "machine_revoked"

    def __init__(self, machine: Machine) -> None:
        super().__init__(f"The machine {machine.name} was revoked at {machine.revoked_at}")


class MachineIdleError(MachineRefusedError):
    """It has not come for months: its token may be anybody's by now."""

    code = "machine_expired"

    def __init__(self, machine: Machine) -> None:
        super().__init__(
            f"The token of {machine.name} has expired: it was last used at "
            f"{_shown(machine.seen_at)}, and {IDLE / 86400:.0f} days are allowed"
        )


class UnknownInviteError(MachineRefusedError):
    """Its code is none, or was replaced or revoked."""

    code = "unknown_invite"

    def __init__(self) -> None:
        super().__init__(
            "This invite is not known here: it was revoked, or a newer one replaced it"
        )


class InviteUsedError(MachineRefusedError):
    """Its code has been used."""

    code = "invite_used"

    def __init__(self, machine: Machine) -> None:
        super().__init__(f"This invite was used already, at {machine.joined_at}")


class InviteExpiredError(MachineRefusedError):
    """Its code is too old."""

    code = "invite_expired"

    def __init__(self, machine: Machine) -> None:
        super().__init__(f"This invite expired at {_shown(machine.expires_at)}")


class ClockSkewError(MachineRefusedError):
    """Its clock and ours differ too much to tell a replayed request from a new one."""

    code = "clock_skew"

    def __init__(self, at: float, now: float) -> None:
        super().__init__(
            f"This machine's clock says {_shown(at)}, the broker's {_shown(now)}: they differ by "
            f"{abs(now - at):.0f} s, and {SKEW:.0f} s are allowed",
            "Set both clocks by NTP, then try again.",
        )


class ReplayedError(MachineRefusedError):
    """Its signature is another request's."""

    code = "replayed"

    def __init__(self) -> None:
        super().__init__(
            "The request's signature does not fit it: it was replayed, or altered on its way",
            "Send requests with `claude-peers` only, which signs each one.",
        )


def check_clock(at: float, *, now: float) -> None:
    """Refuse a request that was signed `at` another time than `now` (seconds since the epoch).

    Raises:
        ClockSkewError: by more than `SKEW`.
    """
    if abs(now - at) > SKEW:
        raise ClockSkewError(at, now)


def check_token(machine: Machine | None, *, now: float) -> Machine:
    """Return the machine of a token, if it may use the broker at `now` (seconds since the epoch).

    Raises:
        MachineRefusedError: there is none, it was revoked, or not used for too long.
    """
    if machine is None:
        raise MachineRefusedError
    if machine.membership is not Membership.JOINED:
        raise MachineRevokedError(machine)
    if machine.has_ended(now):
        raise MachineIdleError(machine)
    return machine


def check_invite(machine: Machine | None, *, now: float, token_hash: str | None = None) -> Machine:
    """Return the machine of a one-time code, if it may join.

    Args:
        machine: whose code it is.
        now: seconds since the epoch.
        token_hash: of the token it joins with; a join whose answer was lost may be repeated.

    Raises:
        MachineRefusedError: the code is none, used, or too old.
    """
    if machine is None:
        raise UnknownInviteError
    if machine.expires_at <= now:
        raise InviteExpiredError(machine)
    if machine.membership is Membership.JOINED and token_hash not in (None, machine.token_hash):
        raise InviteUsedError(machine)
    return machine


def invite_lifetime(wanted: float | None) -> float:
    """Return the seconds for which an invite is good, as it was asked for."""
    return min(wanted, MOST_INVITE_TTL) if wanted and wanted > 0 else INVITE_TTL


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
