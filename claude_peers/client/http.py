"""A broker's HTTP over one blocking connection, for callers without an event loop.

Whoever binds the port first gets the requests, so the listener may be anybody. `open` sends it
a nonce with `GET /health`, and nothing else leaves before the answer to that, on the very same
connection, has shown one of these:

- the proof that the listener knows this user's secret (`wire.proof`);
- for brokers of other implementations, which know no proof: the listener's uid is ours;
- the user said so, where the system cannot tell whose listener it is.

A broker on another machine shows the certificate by which this one was invited, before a byte is
sent, and the proof that it knows this machine's token.

A connection that breaks is not repaired behind the caller's back: the next request opens, and
so verifies, a new one. No request is ever sent twice.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

import h11

from claude_peers.client.errors import RefusedError
from claude_peers.client.exchange import ADDRESS, Answer, Link
from claude_peers.client.failures import explained, stranger
from claude_peers.core.errors import BadRequestError, NoBrokerError
from claude_peers.wire.codec import dumps
from claude_peers.wire.proof import (
    AUTH_HEADER,
    CHALLENGE_HEADER,
    NONCE_HEADER,
    PROOF_HEADER,
    client_proof,
    proven_epoch,
)

if TYPE_CHECKING:
    from claude_peers.client.joined import Joined

MOST: Final = 64 * 1024 * 1024
"""Bytes of an answer's body."""
HEALTH_MOST: Final = 64 * 1024
"""Bytes of an answer's body that a listener may send before it is verified."""

_OK = 200
_Failure = (OSError, h11.RemoteProtocolError)


class BrokerHttp:
    """A verified connection to a broker.

    Args:
        place: its port on this machine, or what is known of one on another that was joined.
        timeout: seconds that an exchange may take.
        secret: what it may prove to know.
        trust_listener: whether it is trusted where the system does not tell whose it is.
        listener_uid: tells whose listener is on a port.
        own_uid: this user.

    Attributes:
        health: what the broker said of itself.
        proven: whether it knows this user's secret.
        epoch: its epoch, if proven.
        challenge: what `authenticate` answers, if it sent one.
    """

    def __init__(
        self,
        place: "int | Joined",
        *,
        timeout: float = 3.0,
        secret: bytes | None,
        trust_listener: bool,
        listener_uid: Callable[[int], int | None],
        own_uid: int,
    ) -> None:
        self._joined = None if isinstance(place, int) else place
        self._port = place if isinstance(place, int) else place.address.port
        self._where = str(self._joined.address) if self._joined else f"{ADDRESS}:{place}"
        self._timeout = timeout
        self._secret = secret
        self._trust_listener = trust_listener
        self._listener_uid = listener_uid
        self._own_uid = own_uid
        self._link: Link | None = None
        self._forget()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Connect, and verify who listens.

        Raises:
            NoBrokerError: nobody does, or nobody to be trusted; the text says which and why.
        """
        self.close()
        try:
            link = self._dial(time.monotonic() + self._timeout)
        except OSError as error:
            raise self._explained(error) from error
        try:
            nonce = os.urandom(16).hex()
            answer = self._ask(link, ("GET", "/health"), {NONCE_HEADER: nonce}, most=HEALTH_MOST)
            self._verify(answer, nonce)
        except BaseException:
            link.close()
            self._forget()
            raise
        self._link = link

    def close(self) -> None:
        """Hang up and forget who was there."""
        if self._link is not None:
            self._link.close()
        self._link = None
        self._forget()

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and value of a `GET`.

        Raises:
            NoBrokerError: there is no broker, or it broke off.
        """
        return self._value(self._ask(self._verified(), ("GET", path), {}))

    def post(
        self,
        path: str,
        body: dict[str, Any],
        *,
        authenticate: bool = False,
        token: str | None = None,
        wait: float = 0.0,
    ) -> tuple[int, Any]:
        """Return status and value of a `POST`.

        Args:
            path: where to.
            body: what is sent, as JSON.
            authenticate: prove that we are this user.
            token: the token of the peer that asks.
            wait: seconds that the answer may take longer than usual.

        Raises:
            NoBrokerError: there is no broker, it broke off, or it is none to prove anything to.
        """
        link = self._verified()
        data = dumps(body)
        headers = {"content-type": "application/json", "content-length": str(len(data))}
        if authenticate:
            headers[AUTH_HEADER] = self._auth()
        if token is not None:
            headers["authorization"] = f"Bearer {self._confided(token)}"
        return self._value(self._ask(link, ("POST", path), headers, body=data, wait=wait))

    def _forget(self) -> None:
        self.epoch: int | None = None
        self.proven = False
        self.challenge: str | None = None
        self.health: dict[str, Any] = {}

    def _verified(self) -> Link:
        if self._link is None or not self._link.idle():
            self.open()
        assert self._link is not None  # noqa: S101 - `open` has set it, or raised
        return self._link

    def _dial(self, deadline: float) -> Link:
        if self._joined is None:
            return Link(self._port, deadline=deadline)
        from claude_peers.client.remote import RemoteLink

        return RemoteLink(self._joined, deadline=deadline)

    def _ask(
        self,
        link: Link,
        asked: tuple[str, str],
        headers: dict[str, str],
        *,
        body: bytes = b"",
        most: int = MOST,
        wait: float = 0.0,
    ) -> Answer:
        method, path = asked
        lines = {"host": self._where, **headers, **link.signed(method, path, body)}
        request = h11.Request(method=method, target=path, headers=list(lines.items()))
        try:
            deadline = time.monotonic() + self._timeout + wait
            return link.exchange(request, body, deadline=deadline, most=most)
        except _Failure as error:
            link.close()
            self.close()
            raise self._explained(error) from error

    def _verify(self, answer: Answer, nonce: str) -> None:
        if self._secret is not None:
            proof = answer.headers.get(PROOF_HEADER, "")
            self.epoch = proven_epoch(self._secret, nonce, proof)
            self.proven = self.epoch is not None
        if self._joined is not None:
            self._check_admitted(answer)
        uid = None if self.proven else self._listener_uid(self._port)
        if uid is not None and uid != self._own_uid:
            raise NoBrokerError(
                f"The listener on {self._where} belongs to another user (uid {uid})",
                "Set CLAUDE_PEERS_PORT to a port of your own.",
            )
        self.health = self._health(answer)
        if not self.proven and uid is None and not self._trust_listener:
            raise NoBrokerError(
                f"The listener on {self._where} has not proven itself, and the system does not "
                "tell whose it is",
                "If you trust it, set CLAUDE_PEERS_TRUST_LISTENER=1.",
            )
        self.challenge = answer.headers.get(CHALLENGE_HEADER)

    def _check_admitted(self, answer: Answer) -> None:
        """Tell what a broker on another machine says to us, if it does not let us in."""
        if answer.status != _OK:
            told = answer.json()
            if isinstance(told, dict) and "error" in told:
                raise RefusedError("/health", answer.status, told)
        if not self.proven:
            raise stranger(self._where)

    def _health(self, answer: Answer) -> dict[str, Any]:
        try:
            health = answer.json()
        except BadRequestError:
            health = None
        if answer.status == _OK and isinstance(health, dict) and health.get("status") == "ok":
            return health
        if self.proven:
            raise NoBrokerError(
                f"The broker on {self._where} is not serving (HTTP {answer.status})",
                "Try again in a moment.",
            )
        raise stranger(self._where)

    def _auth(self) -> str:
        if self._secret is None or self.challenge is None or not self.proven:
            # An answer to a stranger's challenge could be handed on to the real broker.
            raise self._unproven()
        return client_proof(self._secret, self.challenge)

    def _confided(self, token: str) -> str:
        if not self.proven:
            raise self._unproven()
        return token

    def _unproven(self) -> NoBrokerError:
        return NoBrokerError(
            f"The broker on {self._where} has not proven that it knows this user's secret",
            "It is another program's, or one with another CLAUDE_PEERS_DB; "
            "use the same settings, or end it where it was started.",
        )

    def _value(self, answer: Answer) -> tuple[int, Any]:
        try:
            return answer.status, answer.json()
        except BadRequestError as error:
            self.close()
            raise NoBrokerError(
                f"The broker on {self._where} answered with broken JSON",
                "Run `claude-peers doctor` to see who listens there.",
            ) from error

    def _explained(self, error: OSError | h11.RemoteProtocolError) -> NoBrokerError:
        abroad = self._joined is not None
        return explained(error, self._where, patience=self._timeout, abroad=abroad)
