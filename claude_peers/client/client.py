"""One peer's way to the broker, whoever that is at the moment.

Requests go out at once, in order, over the one connection. When it breaks they wait, and are
sent again, in the same order and under the same numbers and keys, over the next one; a caller
notices a take-over only by the time it takes.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from claude_peers.client.errors import NOT_LEADER, checked
from claude_peers.client.link import Link, Pushed, Settled
from claude_peers.core.errors import ClaudePeersError, NoBrokerError

PATIENCE = 10.0
"""Seconds a request waits for a broker."""
REPEAT = (
    "Call again with exactly the same arguments, before you send anything else there and within "
    "ten minutes of the first call: then it is one message, however often it came. Whether it was "
    "stored, `claude-peers log` shows."
)
"""What a session's agent is to do about a message that may have been stored (`tools.repeats`)."""
ANOTHERS = (
    "This broker is another implementation's, for which the same again is a second message: ask "
    "the recipient before you send it again."
)
"""And where the broker knows no dedupe keys."""


@dataclass(slots=True)
class _Request:
    """A request that waits for its answer.

    Attributes:
        went_out: whether some broker may have got it.
        unkeyed: whether one of these knows no dedupe keys.
    """

    operation: str
    body: dict[str, Any]
    future: "asyncio.Future[tuple[int, Any]]"
    went_out: bool = False
    unkeyed: bool = False

    def send(self, link: Link, number: int) -> None:
        """Send it over a connection."""
        self.went_out = True
        self.unkeyed = self.unkeyed or not link.keeps
        link.send(number, self.operation, self.body)


class Client:
    """Speaks for one peer.

    Args:
        registration: what to register with, asked anew for each connection.

    Attributes:
        peer_id: this peer's id, "" before the first registration.
        name: its name.
        problem: why there can be no broker, shown to callers instead of a time-out.
        registered: set once the first registration is done.
        wanting: set while a request waits for a connection.
        secondary: whether another server of the same agent is the one that is pushed to.
        pushed: called with each message that comes, and its sender.
        settled: called with the ids of messages that another server of the agent has read.
        joined: called after each registration.
        beat: called with each sign of life of the broker.
    """

    def __init__(self, registration: Callable[[], dict[str, Any]]) -> None:
        self.peer_id = ""
        self.name = ""
        self.problem: ClaudePeersError | None = None
        self.registered = asyncio.Event()
        self.wanting = asyncio.Event()
        self.pushed: Pushed = lambda _message, _sender: None
        self.settled: Settled = lambda _ids: None
        self.beat: Callable[[], None] = lambda: None
        self.joined: Callable[[], None] = lambda: None
        self.secondary = False
        self._registration = registration
        self._token: str | None = None
        self._link: Link | None = None
        self._waiting: dict[int, _Request] = {}
        self._held: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._last_push = 0

    @property
    def connected(self) -> bool:
        """Whether requests go out at once."""
        return self._link is not None

    async def call(self, operation: str, body: dict[str, Any], *, within: float = PATIENCE) -> Any:
        """Return the answer to a request.

        Raises:
            NoBrokerError: no broker answered in time; the text says whether one may have done it.
            RefusedError: the broker refused.
        """
        if self._link is None and self.problem is not None:
            raise self.problem
        number, request = self._enqueue(operation, body)
        if self._link is not None:
            request.send(self._link, number)
        else:
            self.wanting.set()
        try:
            async with asyncio.timeout(within):
                status, answer = await request.future
        except TimeoutError:
            raise self._no_answer(request, within) from None
        finally:
            self._waiting.pop(number, None)
        return self._with_held(operation, body, checked(operation, status, answer))

    async def attach(self, link: Link, secret: bytes) -> None:
        """Register over a new connection, then send whatever waits.

        Raises:
            RefusedError: the broker does not let this peer in.
            OSError: the connection ended meanwhile.
        """
        link.answered = self._answered
        link.pushed = self._pushed if link.keeps else self._hold
        link.settled = self.settled
        link.beat = self.beat
        body = self._registration()
        if self._token is not None:
            body["token"] = self._token
            body["after"] = self._last_push
        body["proof"] = link.prove(secret)
        number, request = self._enqueue("/register", body)
        request.send(link, number)
        try:
            await _first(request.future, link)
        finally:
            self._waiting.pop(number, None)
        joined = checked("/register", *request.future.result())
        self.peer_id = joined["id"]
        # An upstream broker knows no tokens; ours, which may follow, still knows this one.
        self._token = joined.get("token", self._token)
        self.name = joined.get("name", self.peer_id)
        self.secondary = bool(joined.get("secondary"))
        self.problem = None
        self._link = link
        self.wanting.clear()
        self.registered.set()
        self.joined()
        for number, request in list(self._waiting.items()):
            request.send(link, number)

    def detach(self) -> None:
        """Let requests wait: the connection is over."""
        self._link = None
        if self._waiting:
            self.wanting.set()

    def _enqueue(self, operation: str, body: dict[str, Any]) -> tuple[int, _Request]:
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        request = self._waiting[self._number] = _Request(operation, body, future)
        return self._number, request

    def _answered(self, number: int, status: int, body: Any) -> None:
        request = self._waiting.get(number)
        if request is None or request.future.done():
            return
        if isinstance(body, dict) and body.get("code") == NOT_LEADER:
            return  # the connection ends any moment; the next broker gets the request
        request.future.set_result((status, body))

    def _pushed(self, message: dict[str, Any], sender: dict[str, Any] | None) -> None:
        self._last_push = max(self._last_push, message["id"])
        self.pushed(message, sender)

    def _hold(self, message: dict[str, Any], sender: dict[str, Any] | None) -> None:
        """Keep a message that its broker has forgotten; broken connections do not matter."""
        self._held[message["id"]] = message
        self._pushed(message, sender)

    def _with_held(self, operation: str, body: dict[str, Any], answer: Any) -> Any:
        """Return an answer about mail as if the broker had kept what is held here."""
        if operation == "/ack-messages":
            for number in body.get("message_ids", ()):
                self._held.pop(number, None)
        if operation == "/poll-messages":
            exclude = body.get("exclude", ())
            held = [each for number, each in self._held.items() if number not in exclude]
            return {"messages": held + answer["messages"]}
        return answer

    def _no_answer(self, request: _Request, within: float) -> ClaudePeersError:
        if request.went_out:
            again = ANOTHERS if request.unkeyed else REPEAT
            return unanswered(request.body, within, again=again)
        return self.problem or never_sent(within)


def never_sent(within: float) -> NoBrokerError:
    """Return what to tell when there was no broker for so many seconds."""
    return NoBrokerError(
        f"No broker answered within {within:g} s, and nothing was sent",
        "Try again; `claude-peers status` tells what is on the port.",
    )


def unanswered(body: dict[str, Any], within: float, *, again: str) -> NoBrokerError:
    """Return what to tell when a broker got a request and gave no answer in time.

    Only a message is worth a warning: whatever else is done twice has been done once.

    Args:
        body: the request's.
        within: seconds that were waited.
        again: what it means to send a message again.
    """
    fact = f"The broker did not answer within {within:g} s"
    if "dedupe_key" not in body:
        return NoBrokerError(fact, "Try again; `claude-peers status` tells what is on the port.")
    return NoBrokerError(f"{fact}, so the message may have been stored or not", again)


def key() -> str:
    """Return a new dedupe key: unguessable, so that no two messages share it."""
    return os.urandom(12).hex()


async def _first(future: "asyncio.Future[Any]", link: Link) -> None:
    """Wait for an answer, or for the end of the connection.

    Raises:
        ConnectionResetError: the connection ended first.
    """
    ended = asyncio.ensure_future(link.ended())
    try:
        await asyncio.wait((future, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
    if not future.done():
        raise ConnectionResetError("the broker hung up")
