"""A shell's mailbox: durable under its name, held by one process at a time.

A command that holds it is a peer like any other, and away when it has ended: mail for the name
waits until the next command takes it. What a command takes it has on a lease, and acknowledges
once it has printed it, so that nothing is lost between broker and terminal.
"""

import os
import time
from collections.abc import Iterable
from typing import Any, Self

from claude_peers.cli.reach import Broker
from claude_peers.client.errors import RefusedError
from claude_peers.core import identity
from claude_peers.core.errors import ClaudePeersError, NoBrokerError
from claude_peers.core.limits import PAGE

PATIENCE = 15.0
"""Seconds in which another broker must have taken over."""
AGAIN = 0.1
"""Seconds between two looks for it."""
LONGEST = 50.0
"""Seconds of one wait; the broker takes it for a sign of life."""


class HeldError(ClaudePeersError):
    """Somebody who is there has the name: `peer_id`, as far as that is known."""

    code = "name_held"

    def __init__(self, name: str, peer_id: str) -> None:
        self.peer_id = peer_id
        super().__init__(
            f"{name} is the name of a peer that is there now",
            f"Choose another --name, or look without taking: claude-peers inbox --of {name}",
        )


class Mailbox:
    """Holds a mailbox; use it as a context manager.

    Args:
        name: the wanted name.
        route: how messages reach who reads it, as others see it in the roster.
        exact: whether another name will not do, if somebody has this one.

    Attributes:
        name: the name it has.
        peer_id: its id.

    Raises:
        HeldError: somebody who is there has the name.
        NoBrokerError: there is no broker, or one that knows no mailboxes.
    """

    def __init__(self, name: str, *, route: str = "", exact: bool = True) -> None:
        self.name = identity.as_name(name)
        self.peer_id = ""
        self._route = route
        self._exact = exact
        self._token: str | None = None
        self._broker = Broker()

    def __enter__(self) -> Self:
        """Connect, and join."""
        self._broker.__enter__()
        try:
            self._join()
        except BaseException:
            self._broker.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave; what was not taken stays for whoever comes next under this name."""
        try:
            self._broker.ask("/unregister", self.me, token=self._token)
        except (NoBrokerError, RefusedError):
            pass  # the next broker sees that this process is gone
        finally:
            self._broker.__exit__()

    @property
    def me(self) -> dict[str, Any]:
        """The body of requests that need no more than this mailbox."""
        return {"id": self.peer_id}

    def send(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send a message from this mailbox; however often it travels, it is one."""
        key = {"from_id": self.peer_id, "dedupe_key": os.urandom(12).hex()}
        answer: dict[str, Any] = self._ask("/send-message", body | key)
        return answer

    def take(
        self, wait: float = 0.0, *, exclude: Iterable[int] = (), most: int = PAGE
    ) -> list[dict[str, Any]]:
        """Take at most so many unread messages on a lease.

        Args:
            wait: if there are none, seconds to wait for the first.
            exclude: those that are not wanted.
            most: how many.
        """
        wait = min(wait, LONGEST)
        which = {"exclude": sorted(exclude), "limit": most, "wait_s": wait}
        body = {**self.me, "ack_supported": True, **which}
        found: list[dict[str, Any]] = self._ask("/poll-messages", body, wait=wait)["messages"]
        return found

    def look(self) -> list[dict[str, Any]]:
        """Return what is unread, and leave it so."""
        found: list[dict[str, Any]] = self._ask("/peek-messages", self.me)["messages"]
        return found

    def seen(self, ids: Iterable[int], via: str) -> None:
        """Acknowledge what has been shown."""
        self._settle("/ack-messages", ids, via)

    def give_back(self, ids: Iterable[int], via: str) -> None:
        """Return what was taken and not shown."""
        self._settle("/release-messages", ids, via)

    def _settle(self, operation: str, ids: Iterable[int], via: str) -> None:
        if listed := sorted(ids):
            self._ask(operation, {**self.me, "message_ids": listed, "via": via})

    def _join(self) -> None:
        broker = self._broker
        if not broker.ours:
            raise NoBrokerError(
                f"The broker on {broker.url} is another implementation's: it keeps no mailboxes",
                "End it where it was started; then the next session of claude-peers leads.",
            )
        taken = {str(peer[each]): peer["id"] for peer in broker.peers() for each in ("id", "name")}
        if self._exact and self.name in taken:
            raise HeldError(self.name, taken[self.name])
        self.name = identity.free_name(self.name, taken)
        body = {
            "pid": os.getpid(),
            "cwd": os.getcwd(),
            "name": self.name,
            "client": "claude-peers cli",
            "route": self._route,
            "keys": [identity.key("shell", self.name)],
        }
        joined = broker.ask("/register", body, authenticate=True)
        self.peer_id, self._token = joined["id"], joined["token"]
        if self._exact and joined["name"] != self.name:  # somebody came between
            broker.ask("/unregister", self.me, token=self._token)
            raise HeldError(self.name, "")
        self.name = joined["name"]

    def _ask(self, operation: str, body: dict[str, Any], *, wait: float = 0.0) -> Any:
        """Ask, and if the broker ends meanwhile ask the next one; the token speaks for us there."""
        end = time.monotonic() + PATIENCE + wait
        while True:
            try:
                return self._broker.ask(operation, body, token=self._token, wait=wait)
            except NoBrokerError:
                if time.monotonic() > end:
                    raise
            time.sleep(AGAIN)


def own(name: str) -> str:
    """Return the id of the user's own mailbox of that name, also while another command reads it."""
    try:
        with Mailbox(name) as mailbox:
            return mailbox.peer_id
    except HeldError as held:
        return held.peer_id
