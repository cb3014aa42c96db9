"""What should be true of a broker's mail, for the stateful test: the model, told each step."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from claude_peers.core.delivery import DIRECT_TTL, TRANSITIONS, Event
from claude_peers.core.models import UNREAD, State
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ

DELIVERIES = 3
"""Hand-outs of one message: few, so that they come to their end."""
OFFERED = (State.QUEUED, State.PUSHED)


@dataclass
class Mail:
    """What the model knows of a message."""

    number: int
    to_id: str
    from_id: str
    text: str
    sent: float
    key: str
    reply_to: int | None = None
    to_name: str | None = None
    hops: int = 0
    state: State = State.QUEUED
    handed: int = 0
    ended: float = 0.0
    moved: bool = False
    late: bool = False


@dataclass
class Handed:
    """A hand-out that is not settled: legacy ones have no deadline."""

    owner: str
    numbers: set[int]
    deadline: float | None
    written: bool


class Link:
    """The client's end of a live connection, and a sink: it reads `room` more frames.

    Args:
        owed: what it must be sent once it reads.
        process: what its process got over this and earlier connections.
    """

    def __init__(self, owed: Iterable[int], process: list[int], *, room: int) -> None:
        self.owed = set(owed)
        self.process = process
        self.got: list[int] = []
        self.room = room
        self._unread: list[dict[str, Any]] = []

    def write(self, frame: bytes) -> None:
        """See `transports.live.Sink`."""
        self.room -= 1
        self._unread.append(json.loads(frame)["message"])

    def hang_up(self) -> None:
        """See `transports.live.Sink`."""

    @property
    def clogged(self) -> bool:
        """See `transports.live.Sink`."""
        return self.room <= 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield each push that came since the last time."""
        while self._unread:
            view = self._unread.pop(0)
            yield view
            self.got.append(view["id"])
            self.process.append(view["id"])


@dataclass
class Model:
    """What should be true."""

    now: float = 0.0
    stepped: float = 0.0
    latest: float = 0.0
    mail: dict[int, Mail] = field(default_factory=dict)
    last: int = 0
    changes: int = 0
    purged: int = 0
    handed: list[Handed] = field(default_factory=list)
    muted: set[tuple[str, str]] = field(default_factory=set)
    resent: dict[int, int] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        """The wall clock, which may step; messages live by it."""
        return self.now + self.stepped

    def fresh(self, mail: Mail) -> bool:
        """Whether its key is known, whatever the clock has done since."""
        self.latest = max(self.latest, self.wall)
        return mail.sent > self.latest - DEDUPE_WINDOW

    def move(self, number: int, event: Event) -> bool:
        mail = self.mail.get(number)
        to = mail and TRANSITIONS.get((mail.state, event))
        if not mail or to is None:
            return False
        mail.state = to
        mail.handed += event in (Event.LEASE, Event.PUSH)
        self.changes += 1
        mail.late |= event is Event.ADMIT
        if to not in UNREAD:
            mail.ended = self.wall
        if to not in OFFERED:
            self._not_owed(number)
        return True

    def _not_owed(self, number: int) -> None:
        for link in self.links.values():
            link.owed.discard(number)

    def offer(self, number: int) -> None:
        """Owe a push to whoever is connected."""
        mail = self.mail[number]
        if mail.state in OFFERED and mail.to_id in self.links:
            self.links[mail.to_id].owed.add(number)

    def move_own(self, owner: str, numbers, event: Event) -> list[int]:
        own = [n for n in sorted(set(numbers)) if n in self.mail and self.mail[n].to_id == owner]
        return [number for number in own if self.move(number, event)]

    def offered(self, owner: str) -> list[int]:
        return [m.number for m in self.mail.values() if m.to_id == owner and m.state in OFFERED]

    def close(self, which, event: Event) -> None:
        """End the hand-outs for which `which` is true, with `event` for their messages."""
        for handed in [each for each in self.handed if which(each)]:
            self.handed.remove(handed)
            self.move_own(handed.owner, handed.numbers, event)

    def give_up(self, owner: str, numbers) -> None:
        for number in self.offered(owner):
            if number in numbers and self.mail[number].handed >= DELIVERIES:
                self.move(number, Event.GIVE_UP)

    def readdress(self, old: str, new: str, name: str) -> None:
        for mail in self.mail.values():
            if (mail.to_id, mail.to_name) == (old, name) and mail.state in UNREAD:
                mail.to_id, mail.state, mail.moved, mail.late = new, State.QUEUED, True, True
                self._not_owed(mail.number)

    def settle(self, owner: str, numbers: list[int], event: Event) -> list[int]:
        if event is Event.PUSH:
            self.give_up(owner, numbers)
        moved = self.move_own(owner, numbers, event)
        for handed in self.handed:
            if handed.owner == owner:
                handed.numbers.difference_update(moved)
        return moved

    def tidy(self) -> None:
        self.latest = max(self.latest, self.wall)
        self.close(
            lambda each: each.deadline is not None and each.deadline <= self.now, Event.RETURN
        )
        for mail in list(self.mail.values()):
            if mail.state in UNREAD and mail.sent + DIRECT_TTL <= self.wall:
                self.move(mail.number, Event.EXPIRE)
            keep = KEEP_DEAD if mail.state is State.DEAD else KEEP_READ
            if mail.state not in UNREAD and mail.ended <= self.wall - keep:
                del self.mail[mail.number]
                self.purged += 1

    def pushed(self, owner: str, view: dict[str, Any]) -> None:
        """See that a push was due, in order, and not the second of its kind."""
        link, mail = self.links[owner], self.mail[view["id"]]
        assert (mail.to_id, view["text"]) == (owner, mail.text)
        assert mail.state in OFFERED
        assert view.get("redelivered", 0) == mail.handed
        assert mail.number not in link.got
        if not mail.late:
            assert mail.number > max(link.process, default=0)
