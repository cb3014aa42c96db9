"""Who is at the other end of one connection."""

import secrets
from dataclasses import replace
from typing import Final

from claude_peers.broker.registration import hash_token
from claude_peers.core.models import Process
from claude_peers.gateway.framing import Head
from claude_peers.gateway.guard import Facts
from claude_peers.host import sockets
from claude_peers.wire import proof

GONE: Final = -1
"""The uid of a caller that hung up before the system could be asked; nobody's."""


class ConnectionCaller:
    """The caller behind one TCP connection (see `core.models.Caller`).

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
        self.facts = Facts(
            peer=peer[0], uid=owner.uid if owner else unknown, own_uid=uid, port=me[1]
        )
        self.challenge = secrets.token_hex(16)
        self.token_hash: str | None = None
        self.knows_secret = False
        self._inode = owner.inode if owner else None
        self._secret = secret
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

    def owns(self, process: Process) -> bool:
        """See `core.models.Caller`."""
        if self._inode is None:
            return False
        known = self._owned.get(process)
        if known is None:
            known = self._owned[process] = sockets.holds(process.pid, self._inode)
        return known

    def proves(self, answer: str) -> bool:
        """See `core.models.Caller`."""
        expected = proof.client_proof(self._secret, self.challenge)
        if proof.same(expected, answer):
            self.knows_secret = True
            return True
        return False

    def present(self, head: Head) -> None:
        """Take the credentials of a request: a bearer token, proof of the secret."""
        given = head.headers.get("authorization", "")
        kind, _, token = given.partition(" ")
        self.token_hash = hash_token(token.strip()) if kind.lower() == "bearer" else None
        self.knows_secret = False
        if answer := head.headers.get(proof.AUTH_HEADER):
            self.proves(answer)

    def facts_for(self, *, token_known: bool, token_matters: bool) -> Facts:
        """Return what the guard looks at; `token_known` says whether it is a peer's."""
        if self.token_hash is None or not (token_matters or token_known):
            return self.facts
        return replace(self.facts, token_ok=token_known)
