"""Who is at the other end of one connection."""

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from claude_peers.broker.machines import Machines
from claude_peers.broker.registration import hash_token
from claude_peers.core.machines import MachineRefusedError, ReplayedError
from claude_peers.core.models import Process
from claude_peers.gateway.framing import Head
from claude_peers.gateway.guard import Facts
from claude_peers.host import sockets
from claude_peers.wire import proof
from claude_peers.wire import signature as signatures
from claude_peers.wire.signature import Signature, Target

if TYPE_CHECKING:
    from claude_peers.wire.tls import Tls

JOIN_PATH: Final = "/join"
"""The one request for which an invite's code is enough."""
GONE: Final = -1
"""The uid of a caller that hung up before the system could be asked; nobody's."""


class HttpCaller:
    """What every connection's caller has: the credentials of its latest request.

    Args:
        facts: what the guard looks at.
        secret: what it can prove to know (`wire.proof`); b"" is nothing.

    Attributes:
        challenge: what it answers to prove that.
        token_hash: of the token it shows, a peer's.
        proved: whether it has proved to know the secret, and so to be its machine's user.
        machine: see `core.models.Caller`.
        unjudged: whether its request's body is awaited to judge a signature, which is all it shows.
        holder: whose stream it is, if it is one (`gateway.places`).
        left: set once its connection has ended.
    """

    def __init__(self, facts: Facts, *, secret: bytes) -> None:
        self.facts = facts
        self.secret = secret
        self.challenge = secrets.token_hex(16)
        self.token_hash: str | None = None
        self.proved = False
        self.machine = ""
        self.unjudged = False
        self.holder: str | None = None
        self.left = asyncio.Event()

    @property
    def knows_secret(self) -> bool:
        """See `core.models.Caller`; what another machine proves is its own token."""
        return self.proved and not self.machine

    def is_user_of(self, machine: str) -> bool:
        """See `core.models.Caller`."""
        return self.proved and machine == self.machine

    def proves(self, answer: str) -> bool:
        """See `core.models.Caller`."""
        expected = proof.client_proof(self.secret, self.challenge)
        if self.secret and proof.same(expected, answer):
            self.proved = True
            return True
        return False

    def present(self, head: Head) -> None:
        """Take the credentials of a request: a bearer token, proof of the secret."""
        given = head.headers.get("authorization", "")
        kind, _, token = given.partition(" ")
        self.token_hash = hash_token(token.strip()) if kind.lower() == "bearer" else None
        self.proved = False
        if answer := head.headers.get(proof.AUTH_HEADER):
            self.proves(answer)

    def facts_for(self, *, token_known: bool, token_matters: bool) -> Facts:
        """Return what the guard looks at; `token_known` says whether it is a peer's."""
        if self.token_hash is None or not (token_matters or token_known):
            return self.facts
        return replace(self.facts, token_ok=token_known)


class ConnectionCaller(HttpCaller):
    """The caller behind one connection on this machine (see `core.models.Caller`).

    The system is asked for the owner of the other end once, when the connection is made: it
    cannot change, and who exits right after sending would be unknown later.

    Args:
        peer: the address at the other end.
        me: the address at this end.
        secret: this user's secret.
        uid: this user.
        knowable: whether this system tells owners. If it does, a caller without one has hung up
            already; if that let it pass, any user could write here without being asked who.
    """

    def __init__(
        self,
        peer: tuple[str, int],
        me: tuple[str, int],
        *,
        secret: bytes,
        uid: int,
        knowable: bool = False,
    ) -> None:
        owner = sockets.owner(peer, me)
        unknown = GONE if knowable else None
        uid_there = owner.uid if owner else unknown
        super().__init__(Facts(peer=peer[0], uid=uid_there, own_uid=uid, port=me[1]), secret=secret)
        self._inode = owner.inode if owner else None
        self._owned: dict[Process, bool] = {}

    @property
    def source(self) -> str:
        """See `core.models.Caller`."""
        # Not the socket: who connects anew for each message is not somebody else each time.
        return f"{self.facts.peer} {self.facts.uid}"

    @property
    def traceable(self) -> bool:
        """See `core.models.Caller`."""
        return self._inode is not None

    @property
    def stranger(self) -> bool:
        """Whether it is another user, or nobody knows yet: a tunnel runs as this user."""
        return self.unjudged or self.facts.uid not in (None, self.facts.own_uid)

    def owns(self, process: Process) -> bool:
        """See `core.models.Caller`."""
        if self._inode is None:
            return False
        known = self._owned.get(process)
        if known is None:
            known = self._owned[process] = sockets.holds(process.pid, self._inode)
        return known

    def received(self, body: bytes) -> None:
        """Take a request's body; what travels on this machine only needs no digest."""
        del body
        self.unjudged = False  # from here to the verdict nothing is waited for


class RemoteCaller(HttpCaller):
    """The caller behind one TLS connection: nobody, until it signs as a machine that has joined.

    Args:
        peer: the address at the other end.
        me: the address at this end.
        machines: who has joined.
        tls: this connection, for what its requests are bound to.
    """

    traceable = False

    def __init__(
        self, peer: tuple[str, int], me: tuple[str, int], *, machines: Machines, tls: "Tls"
    ) -> None:
        facts = Facts(peer=peer[0], uid=None, own_uid=-1, port=me[1], remote=True)
        super().__init__(facts, secret=b"")
        self._machines = machines
        self._tls = tls
        self._signature: Signature | None = None

    @property
    def source(self) -> str:
        """See `core.models.Caller`."""
        return f"machine {self.machine}"

    @property
    def stranger(self) -> bool:
        """Whether it is not known from where it is."""
        return not self.machine

    def owns(self, process: Process) -> bool:
        """See `core.models.Caller`: what runs elsewhere owns nothing here."""
        del process
        return False

    def present(self, head: Head) -> None:
        """Take the credentials of a request, the machine's signature before all.

        Raises:
            MachineRefusedError: there is none, or none that counts.
        """
        before, self.machine = self._signature, ""
        signature = self._signature = signatures.read(head.headers.get(signatures.HEADER, ""))
        if signature is None:
            raise MachineRefusedError("A request from another machine needs its token")
        again = before is not None and signature.number <= before.number
        target = Target(head.method, head.path, self._tls.binding)
        if again or not signature.fits(target):
            raise ReplayedError
        self.machine = self._machines.admit(signature, joining=head.path == JOIN_PATH)
        self.secret = signature.token.encode()
        super().present(head)

    def received(self, body: bytes) -> None:
        """Take a request's body.

        Raises:
            ReplayedError: it is not the one that was signed.
        """
        if self._signature is None or not self._signature.covers(body):
            raise ReplayedError
