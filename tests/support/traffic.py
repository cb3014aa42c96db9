"""Steady traffic between sessions, and who led meanwhile."""

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from support.mcp import Session
from support.waiting import eventually

MARK = re.compile(r"\bmail-[0-9a-z]+-\d{5,}\b")
HEAD = re.compile(r"^(?=From \w)", re.MULTILINE)
"""Where the frame of a message begins in a tool's result."""
AGAIN = "· redelivered, offered"
"""How the head of a message that may have been seen before says so."""


class Offer(NamedTuple):
    """A marked text as a session was shown it, and whether that said it may not be the first."""

    text: str
    again: bool


class Traffic:
    """One session sends to another at a steady pace, through its tools.

    Attributes:
        refused: results of calls that failed.
    """

    def __init__(self, sender: Session, to_id: str, *, per_second: int = 50) -> None:
        self.refused: list[str] = []
        self._sender = sender
        self._to_id = to_id
        self._pause = 1 / per_second
        self._asked: list[tuple[str, int | str]] = []
        self._accepted: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Send no more; return what was accepted, in the order in which it was sent."""
        self._end.set()
        self._thread.join(30)
        self._settle(len(self._asked))
        return self._accepted

    def flows(self, more: int = 20) -> None:
        """Wait until so many messages that are sent from now on have been answered."""
        goal = len(self._asked) + more
        eventually(lambda: len(self._asked) >= goal, what="sending")
        self._settle(goal)

    def _settle(self, count: int) -> None:
        done = len(self._accepted) + len(self.refused)
        for text, number in self._asked[done:count]:
            result, failed = self._sender.outcome(number)
            if failed:
                self.refused.append(result)
            else:
                self._accepted.append(text)

    def _run(self) -> None:
        while not self._end.wait(self._pause):
            text = f"mail-{self._to_id}-{len(self._asked):05}"
            call = self._sender.ask_tool("send_message", to_id=self._to_id, message=text)
            self._asked.append((text, call))


class Reader:
    """Calls check_messages over and over.

    Attributes:
        offers: what it was shown, in order.
    """

    def __init__(self, session: Session) -> None:
        self.offers: list[Offer] = []
        self._session = session
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Read what is left and return the texts of everything."""
        self._end.set()
        self._thread.join(30)
        self.offers += rest_of(self._session)
        return [offer.text for offer in self.offers]

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self.offers += _page(self._session)


def offers_in(text: str) -> list[Offer]:
    """Return the messages in a tool's result."""
    blocks = HEAD.split(text)
    return [Offer(mark, AGAIN in block) for block in blocks for mark in _marks(block)]


def rest_of(session: Session) -> list[Offer]:
    """Return all unread messages, as check_messages shows them."""
    offers: list[Offer] = []
    while found := _page(session):
        offers += found
    return offers


def read_all(session: Session) -> list[str]:
    """Return the marked texts of all unread messages, as check_messages shows them."""
    return [offer.text for offer in rest_of(session)]


def pushes(session: Session) -> list[Offer]:
    """Return what was pushed."""
    return [
        Offer(text, "redelivered" in push["meta"])
        for push in session.pushes
        for text in _marks(push["content"])
    ]


def pushed(session: Session) -> list[str]:
    """Return the marked texts of all pushes."""
    return [offer.text for offer in pushes(session)]


class Account(NamedTuple):
    """How what arrived differs from what was accepted, in messages.

    Attributes:
        lost: accepted, and never offered.
        duplicated: offered again without saying so.
        redelivered: offered again, and marked as that.
        reordered: offered for the first time after one that was accepted later.
        unasked: offered, but never accepted.
    """

    lost: int
    duplicated: int
    redelivered: int
    reordered: int
    unasked: int


def account(accepted: Sequence[str], offers: Sequence[Offer]) -> Account:
    """Compare what was accepted, in its order, with what was offered."""
    place = {text: number for number, text in enumerate(accepted)}
    seen: set[str] = set()
    duplicated = redelivered = reordered = 0
    newest = -1
    for text, again in offers:
        if text in seen:
            redelivered += again
            duplicated += not again
            continue
        seen.add(text)
        reordered += place.get(text, newest) < newest
        newest = max(newest, place.get(text, newest))
    lost = len(place.keys() - seen)
    return Account(lost, duplicated, redelivered, reordered, len(seen - place.keys()))


@dataclass
class Watch:
    """Who led, as the brokers said of themselves.

    Attributes:
        leaders: when (monotonic seconds) each pair of epoch and pid first answered.
        leader: the pid of who answers now, None while nobody does.
    """

    leaders: dict[tuple[int, int], float] = field(default_factory=dict)
    leader: int | None = None

    @property
    def epochs(self) -> list[int]:
        """The epochs seen, once for each process that claimed it."""
        return sorted(epoch for epoch, _ in self.leaders)


@contextmanager
def watching(port: int) -> Iterator[Watch]:
    """Ask whoever is the broker, over and over."""
    watch, end = Watch(), threading.Event()

    def look() -> None:
        broker = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        while not end.wait(0.002):
            try:
                broker.request("GET", "/status")
                told = json.loads(broker.getresponse().read())
                watch.leaders.setdefault((told["epoch"], told["pid"]), time.monotonic())
                watch.leader = told["pid"]
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                # Nobody answers at the moment, or it died in the middle of it.
                watch.leader = None
                broker.close()
        broker.close()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join(10)


def _page(session: Session) -> list[Offer]:
    return offers_in(session.call("check_messages")[0])


def _marks(text: str) -> list[str]:
    return MARK.findall(text)
