"""Steady traffic between sessions, and who led meanwhile."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support import http
from support.mcp import Session
from support.waiting import eventually

MARK = re.compile(r"\bmail-[0-9a-z]+-\d{5}\b")


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
        texts: what it was shown, in order.
    """

    def __init__(self, session: Session) -> None:
        self.texts: list[str] = []
        self._session = session
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Read what is left and return everything."""
        self._end.set()
        self._thread.join(30)
        self.texts += read_all(self._session)
        return self.texts

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self.texts += _marks(self._session.call("check_messages")[0])


def read_all(session: Session) -> list[str]:
    """Return the marked texts of all unread messages, as check_messages shows them."""
    texts: list[str] = []
    while found := _marks(session.call("check_messages")[0]):
        texts += found
    return texts


def pushed(session: Session) -> list[str]:
    """Return the marked texts of all pushes."""
    return [text for push in session.pushes for text in _marks(push["content"])]


@dataclass
class Watch:
    """Who led: pairs of epoch and pid, as the brokers said of themselves."""

    leaders: set[tuple[int, int]] = field(default_factory=set)

    @property
    def epochs(self) -> list[int]:
        """The epochs seen, once for each process that claimed it."""
        return sorted(epoch for epoch, _ in self.leaders)


@contextmanager
def watching(port: int) -> Iterator[Watch]:
    """Ask whoever is the broker, over and over."""
    watch, end = Watch(), threading.Event()

    def look() -> None:
        while not end.wait(0.002):
            try:
                told = http.get(port, "/status", timeout=2).json()
                watch.leaders.add((told["epoch"], told["pid"]))
            except (OSError, http.http.client.HTTPException, ValueError, KeyError):
                continue  # nobody answers at the moment, or it died in the middle of it

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join(10)


def _marks(text: str) -> list[str]:
    return MARK.findall(text)
