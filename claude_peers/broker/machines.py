"""Other machines as the broker knows them: invited, joined, revoked; in memory, written through."""

import hashlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

from claude_peers.broker.context import iso
from claude_peers.broker.ports import Clock, Store
from claude_peers.core import identity, machines
from claude_peers.core.errors import BadRequestError, ClaudePeersError, NameTakenError
from claude_peers.core.machines import Machine, Membership
from claude_peers.core.text import one_line
from claude_peers.wire.invitation import (
    CODE,
    MOST,
    Address,
    Invitation,
    make_code,
    read_address,
)
from claude_peers.wire.signature import Signature

_HASH = 64
"""Characters of a SHA-256."""


class NoListenerError(ClaudePeersError):
    """No other machine can reach this broker."""

    code = "not_listening"
    http_status = 409

    def __init__(
        self,
        fact: str = "This broker listens on 127.0.0.1 only, so no other machine can reach it",
        remedy: str = "Set CLAUDE_PEERS_BIND to an address of this machine, or to 0.0.0.0, "
        "wherever claude-peers is started here, then `claude-peers kill-broker`.",
    ) -> None:
        super().__init__(fact, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where other machines reach this broker.

    Attributes:
        addresses: `HOST:PORT` of each TLS listener.
        pin: SHA-256 of the certificate that they show.
        problem: why not all that should listen do, or none.
    """

    addresses: tuple[str, ...] = ()
    pin: bytes = b""
    problem: ClaudePeersError | None = None


class Machines:
    """Who may come from elsewhere.

    Args:
        store: where they are kept.
        clock: what time it is.
        host: this machine's name, which no other is called.
        in_background: runs what nobody waits for.

    Attributes:
        doors: where they come in, as whoever listens tells.
        opened: waits until that has been tried, which takes a moment after a take-over.
        now: tells the time, seconds since the epoch.
        left: called with the name of each machine that may come no more, to end its connections.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        host: str,
        in_background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.doors: Callable[[], Doors] = Doors
        self.opened: Callable[[], Awaitable[None]] = _at_once
        self.left: Callable[[str], None] = lambda _name: None
        self._in_background = in_background
        self._store = store
        self._host = host
        self.now = clock.wall
        self._machines: dict[str, Machine] = {}

    def __iter__(self) -> Iterator[Machine]:
        """Yield every machine that was ever invited, by name."""
        return iter(sorted(self._machines.values(), key=lambda machine: machine.name))

    async def load(self) -> None:
        """Read them."""
        self._machines = {machine.name: machine for machine in await self._store.machines()}

    def admit(self, signature: Signature, *, joining: bool) -> str:
        """Return the name of the machine that signed a request.

        Args:
            signature: what it has signed with, which fits the request.
            joining: whether the request uses an invite, so that its code is enough.

        Raises:
            MachineRefusedError: it may not ask, or its clock is wrong.
        """
        now, shown = self.now(), hash_of(signature.token)
        invited = self._by_code(shown) if joining else None
        if invited is not None:
            machine = machines.check_invite(invited, now=now, token_hash=invited.token_hash)
        else:
            if joining:
                raise machines.UnknownInviteError
            machine = machines.check_token(self._by_token(shown), now=now)
        machines.check_clock(signature.at, now=now)
        if machine.token_hash is not None and now - machine.seen_at > machines.NOTED_EVERY:
            self._in_background(self._put(replace(machine, seen_at=now)))
        return machine.name

    async def invite(
        self, name: str, *, ttl: float | None, addresses: tuple[str, ...] = ()
    ) -> tuple[Machine, Invitation]:
        """Let another machine join under a name, once, in place of an earlier invite for it.

        Raises:
            BadRequestError: that is no name, or no address.
            NameTakenError: a machine has joined under it, or it is this one's.
            NoListenerError: none could reach this broker.
        """
        self._check_name(name)
        await self.opened()
        doors = self.doors()
        if not doors.addresses:
            raise doors.problem or NoListenerError()
        code, now = make_code(os.urandom(CODE)), self.now()
        machine = replace(
            self._living(name) or Machine(name=name),
            code_hash=hash_of(code),
            expires_at=now + machines.invite_lifetime(ttl),
            invited_at=iso(now),
        )
        asked = [_address(each) for each in dict.fromkeys(addresses)]
        bound = [_address(each) for each in doors.addresses if each not in addresses]
        invitation = Invitation(addresses=(*asked, *bound), pin=doors.pin, code=code)
        # A machine of many networks has more addresses than a word should carry.
        while len(str(invitation)) > MOST and len(invitation.addresses) > max(len(asked), 1):
            invitation = replace(invitation, addresses=invitation.addresses[:-1])
        if len(str(invitation)) > MOST:
            raise BadRequestError("These addresses are too many for one invite", "Name fewer.")
        await self._put(machine)
        return machine, invitation

    async def join(self, code: str, token_hash: str) -> Machine:
        """Use an invite; the same join may come twice, because its answer was lost.

        Raises:
            BadRequestError: that is no hash.
            MachineRefusedError: the invite is none, used or expired.
        """
        if len(token_hash) != _HASH or not set(token_hash) <= set("0123456789abcdef"):
            raise BadRequestError("`token_hash` is no SHA-256")
        now = self.now()
        invited = self._by_code(hash_of(code))
        machine = machines.check_invite(invited, now=now, token_hash=token_hash)
        if machine.membership is Membership.JOINED:
            return machine
        joined = replace(
            machine, token_hash=token_hash, joined_at=iso(now), revoked_at=None, seen_at=now
        )
        await self._put(joined)
        return joined

    async def revoke(self, name: str) -> Machine:
        """Let a machine come no more, and end its connections.

        Raises:
            MachineNotFoundError: none of that name was invited.
        """
        machine = self._machines.get(name)
        if machine is None:
            raise MachineNotFoundError(name)
        if machine.membership is not Membership.REVOKED:
            machine = replace(machine, code_hash=None, revoked_at=iso(self.now()))
            await self._put(machine)
        self.left(name)
        return machine

    def _check_name(self, name: str) -> None:
        if not identity.is_name(name):
            raise BadRequestError(
                f"{one_line(name, 64)!r} is no name",
                "Call the machine by up to 64 of a-z, 0-9, dot, dash and underscore.",
            )
        known = self._living(name)
        if name == self._host or (known and known.membership is Membership.JOINED):
            raise NameTakenError(name)

    def _living(self, name: str) -> Machine | None:
        """Return a machine, unless its token has expired: then the name is free."""
        machine = self._machines.get(name)
        ended = machine and machine.token_hash is not None and machine.has_ended(self.now())
        return None if ended else machine

    async def _put(self, machine: Machine) -> None:
        before = self._machines.get(machine.name)
        self._machines[machine.name] = machine
        try:
            await self._store.save_machine(machine)
        except ClaudePeersError:
            if self._machines[machine.name] is machine:
                self._restore(machine.name, before)
            raise

    def _restore(self, name: str, machine: Machine | None) -> None:
        if machine is None:
            del self._machines[name]
        else:
            self._machines[name] = machine

    def _by_code(self, shown: str) -> Machine | None:
        return next((each for each in self if each.code_hash == shown), None)

    def _by_token(self, shown: str) -> Machine | None:
        return next((each for each in self if each.token_hash == shown), None)


class MachineNotFoundError(ClaudePeersError):
    """No machine of this name was ever invited."""

    code = "machine_not_found"
    http_status = 404

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no machine {one_line(name, 64)}", "`claude-peers machines` lists them."
        )


async def _at_once() -> None:
    """Wait for nothing."""


def hash_of(credential: str) -> str:
    """Return what is stored of a token or code."""
    return hashlib.sha256(credential.encode("utf-8", "replace")).hexdigest()


def _address(text: str) -> Address:
    address = read_address(text)
    if address is None:
        raise BadRequestError(
            f"{one_line(text, 64)!r} is no address", "Write it as HOST:PORT, for instance mac:7899."
        )
    return address
