"""A command's way to the broker: find the port, verify who listens, ask."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from claude_peers import settings
from claude_peers.client import joined, others
from claude_peers.client.errors import NOT_LEADER, RefusedError, checked
from claude_peers.client.http import BrokerHttp
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import files, leading, processes, sockets

PATIENCE = 5.0
"""Seconds a command waits for the next broker while one hands over."""
AGAIN = 0.1
"""Seconds between two attempts."""
_CHOSEN = ("CLAUDE_PEERS_PORT", "AGENTMESH_PORT")
"""A port that was asked for is kept, whoever has it."""


class Broker:
    """A verified connection to this user's broker; use it as a context manager.

    Args:
        environ: the environment to find it by, the process's own by default.

    Raises:
        NoBrokerError: there is none, or none that can be trusted.
        NotJoinedError: it is on a machine whose broker this one has not joined.
        SettingsError: an environment variable cannot be used.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.settings = settings.load(environ)
        self.port = self.settings.broker_port
        folder, secret, abroad = self.settings.state_folder, None, None
        if self.settings.remote is not None:
            abroad = joined.find(folder, self.settings.remote, time.time)
            secret = abroad.secret
        elif os.path.isdir(folder):
            secret = _secret(folder)
            self.port = _other_port(self.settings) or self.port
        self._http = BrokerHttp(
            abroad or self.port,
            secret=secret,
            trust_listener=self.settings.trust_listener,
            listener_uid=sockets.listener_uid,
            own_uid=processes.user_id(),
        )

    @property
    def url(self) -> str:
        """Where the broker is."""
        if self.settings.remote is not None:
            return f"https://{self.settings.remote}"
        return f"http://127.0.0.1:{self.port}"

    @property
    def ours(self) -> bool:
        """Whether it is a claude-peers of this user, not another implementation."""
        return self._http.proven

    def __enter__(self) -> Self:
        """Connect."""
        try:
            self._http.open()
        except NoBrokerError as error:
            if self.settings.broker_url:
                raise
            port = leading.elsewhere(self.settings.state_folder, self.port)
            if port is None:
                raise
            raise leading.in_use(self.settings.database_path, port) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._http.close()

    def status(self) -> dict[str, Any]:
        """Return what the broker says of itself and its node."""
        path = "/status" if self.ours else "/health"
        answer = self._patiently(lambda: checked(path, *self._http.get(path)))
        return answer if isinstance(answer, dict) else {}

    def peers(self, *, gone: bool = False) -> list[dict[str, Any]]:
        """Return the peers of this machine; with `gone` those that are away, or left, as well."""
        body = {"scope": "machine", **({"gone": True} if gone else {})}
        found: list[dict[str, Any]] = self.ask("/list-peers", body)
        return found

    def ask(
        self,
        operation: str,
        body: dict[str, Any],
        *,
        authenticate: bool = False,
        token: str | None = None,
        wait: float = 0.0,
    ) -> Any:
        """Return the answer to a request.

        Args:
            operation: its path.
            body: what is asked.
            authenticate: prove that we are this user.
            token: the token of the peer that asks.
            wait: seconds that the broker may take longer than usual.

        Raises:
            RefusedError: the broker refused, or is not asked: it would pass over what it does
                not know.
        """

        def once() -> Any:
            others.check(operation, body, self._http.health)
            told = self._http.post(
                operation, body, authenticate=authenticate, token=token, wait=wait
            )
            return others.narrowed(operation, body, checked(operation, *told), self._http.health)

        return self._patiently(once)

    def _patiently(self, request: Callable[[], Any]) -> Any:
        """Return what a request brings; one that a broker refuses as it ends goes to the next."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return request()
            except RefusedError as error:
                if error.code != NOT_LEADER or time.monotonic() > end:
                    raise
            self._meet_the_next(end)

    def _meet_the_next(self, end: float) -> None:
        while True:
            time.sleep(AGAIN)
            try:
                self._http.open()
            except NoBrokerError:
                if time.monotonic() > end:
                    raise
            else:
                return


def _secret(folder: str) -> bytes | None:
    """Return the user's secret if there is one; a command makes none."""
    return files.secret(folder) if os.path.exists(os.path.join(folder, "secret")) else None


def _other_port(chosen: settings.Settings) -> int | None:
    """Return the port that this user's broker moved to, if another user has the usual one."""
    if chosen.broker_url or any(chosen.environ.get(name) for name in _CHOSEN):
        return None
    told = files.read_private(os.path.join(chosen.state_folder, "port"))
    return int(told) if told and told.isdigit() else None
