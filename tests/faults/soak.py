"""An hour of traffic as fast as it goes, and what its processes and files have become by then.

Ten sessions write to each other, read, answer and are restarted now and then; some mail expires.
One leads all the time and one is never restarted: these two and the files are looked at after each
round, when nothing is under way.

A *level* (memory, descriptors, threads, the write-ahead log) must stay where it is. A *store* (the
database, the log file) keeps what happened for a day or a week, so it must grow no faster in the
second half than in the first. Both compare medians, which no single outlier moves.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.machine import Machine
from support.mcp import Session
from support.traffic import Account, Offer, account, offers_in, rest_of
from support.waiting import eventually

SESSIONS = 10
EVERY = 2
"""Seconds between two messages of a session, of which each is answered as well."""
HOUR = 3600
RESTARTED = 30
"""Rounds between two restarts: each session's turn comes every eight minutes."""
UNLIMITED = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}
LARGE = 250
"""Messages of 10 kB at the beginning: what the database caches of its pages is no leak."""
WARM_UP = 0.25
"""Share of the rounds after which caches and pools count as full."""
LEVELS = {
    "memory": 768,  # KiB
    "descriptors": 2,
    "threads": 1,
    "write-ahead log": 1024 * 1024,  # bytes; it is written back from 4 MiB on
}
"""How much the median of the second half may be above the first one's, by the name's end."""
FASTER = 1.25
"""How much faster a store may grow in the second half."""
SLACK = 128 * 1024
"""Bytes that count as nothing when a store grows: databases grow by pages."""
QUESTION = re.compile(r"message_id (\d+)[^\n]*\n(?:\[[^\n]*\n)?mail-a-")
"""The id of a message that is to be answered, in the frame it has on any route."""


@dataclass(frozen=True, slots=True)
class Found:
    """A series that is not flat: its name, and what it did."""

    name: str
    told: str


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        series: figures after each round, by name.
        accepted: texts that were accepted for each peer, in order.
        offers: what each peer was shown, in order.
        refused: what senders were told instead.
        restarts: how many sessions were restarted.
        large: messages of 10 kB at the beginning.
        expiring: messages that were kept for a millisecond, to a peer that reads at the end.
        late: how many of them it was given all the same.
        ledger: the broker's own account.
    """

    series: dict[str, list[int]] = field(default_factory=dict)
    accepted: dict[str, list[str]] = field(default_factory=dict)
    offers: dict[str, list[Offer]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    restarts: int = 0
    large: int = LARGE
    expiring: int = 0
    late: int = 0
    ledger: dict[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        return sum(map(len, self.accepted.values()))

    def accounts(self) -> dict[str, Account]:
        """Return each peer's account.

        Order holds for each sender, and a peer here hears from two: it is not compared.
        """
        return {
            peer: account(texts, self.offers[peer])._replace(reordered=0)
            for peer, texts in self.accepted.items()
        }


def growing(series: dict[str, list[int]]) -> list[Found]:
    """Return the series that grow."""
    found = []
    for name, values in series.items():
        settled = values[int(WARM_UP * len(values)) :]
        half = len(settled) // 2
        allowed = next((most for end, most in LEVELS.items() if name.endswith(end)), None)
        if allowed is None:
            steps = settled[half] - settled[0], settled[-1] - settled[half]
            if steps[1] > FASTER * steps[0] + SLACK:
                found.append(Found(name, f"grew by {steps[0]}, then by {steps[1]}"))
        elif (rise := _rise(settled, half)) > allowed:
            found.append(Found(name, f"rose by {rise}, more than {allowed}"))
    return found


def _rise(values: Sequence[int], half: int) -> int:
    return round(statistics.median(values[half:]) - statistics.median(values[:half]))


def summary(series: dict[str, list[int]]) -> dict[str, dict[str, int]]:
    """Return for each series where it began, its medians before and after half-time, its end."""
    told = {}
    for name, values in series.items():
        settled = values[int(WARM_UP * len(values)) :]
        half = len(settled) // 2
        told[name] = {
            "first": values[0],
            "before": round(statistics.median(settled[:half])),
            "after": round(statistics.median(settled[half:])),
            "last": values[-1],
            "max": max(values),
        }
    return told


def look(machine: Machine, observed: dict[str, Session]) -> dict[str, int]:
    """Return the figures of the sessions and of the files at this moment."""
    figures = {}
    for name, session in observed.items():
        process = Path("/proc") / str(session.pid)
        # Not its share of what others map as well: that rises when one of them ends.
        told = (process / "smaps_rollup").read_text()
        own = re.search(r"^Private_Dirty: +(\d+)", told, re.MULTILINE)
        assert own is not None
        figures[f"{name}'s memory"] = int(own[1])
        figures[f"{name}'s descriptors"] = len(list((process / "fd").iterdir()))
        figures[f"{name}'s threads"] = len(list((process / "task").iterdir()))
    figures["database"] = machine.database.stat().st_size
    log = Path(f"{machine.database}-wal")
    figures["write-ahead log"] = log.stat().st_size
    logs = machine.home.rglob("claude-peers.log*")
    figures["log file"] = sum(each.stat().st_size for each in logs)
    return figures


class Soak:
    """Sessions in a ring, each of which writes to the next."""

    def __init__(self, machine: Machine) -> None:
        machine.environ.update(UNLIMITED)
        self.outcome = Outcome()
        self._machine = machine
        self._ring: list[Session] = []
        self._ids: list[str] = []
        self._questions: dict[int, int] = {}
        for number in range(SESSIONS):
            self._ring.append(self._start(number))
            self._ids.append(machine.peer_id(self._ring[number]))
        assert machine.leader() is self._ring[0]
        self.outcome.accepted = {each: [] for each in self._ids}
        self.outcome.offers = {each: [] for each in self._ids}
        self._silent, self._writer = (self._stranger() for _ in range(2))
        self._fill()

    def go_on(self, seconds: float) -> Outcome:
        """Let so many seconds' worth of messages pass."""
        observed = {"leader": self._ring[0], "session": self._ring[1]}
        for number in range(round(seconds / EVERY)):
            self._round(number)
            if number % RESTARTED == RESTARTED - 1:
                self._restart(2 + self.outcome.restarts % (SESSIONS - 2))
            for name, figure in look(self._machine, observed).items():
                self.outcome.series.setdefault(name, []).append(figure)
        assert self._machine.leader() is self._ring[0]
        for peer, session in zip(self._ids, self._ring, strict=True):
            self.outcome.offers[peer] += rest_of(session)
        eventually(self._all_expired, timeout=60, what="the end of what expired")
        self.outcome.late = self._poll()
        self.outcome.ledger = self._machine.post("/ledger")
        return self.outcome

    # ---------------------------------------------------------------- inside
    def _start(self, number: int) -> Session:
        session = self._machine.session(cwd=self._machine.folder(f"soak{number}"))
        session.list_prompts()
        return session

    def _stranger(self) -> str:
        """Register a peer of which only the broker knows."""
        return str(self._machine.post("/register", {"cwd": str(self._machine.work)})["id"])

    def _fill(self) -> None:
        """Send large mail, and take it."""
        for _ in range(LARGE):
            self._send("x" * 10_000)
            self._poll()
        self._poll()  # which settles what the last one took

    def _send(self, text: str, **more: Any) -> None:
        mail = {"from_id": self._writer, "to_id": self._silent, "text": text, **more}
        assert self._machine.post("/send-message", mail)["ok"]

    def _poll(self) -> int:
        """Let the silent peer take its mail; return how much there was."""
        return len(self._machine.post("/poll-messages", {"id": self._silent})["messages"])

    def _all_expired(self) -> bool:
        """Whether the broker, which looks every 15 s, has taken away what nobody read in time."""
        dead = self._machine.post("/ledger")["states"].get("dead", 0)
        return bool(dead == self.outcome.expiring)

    def _round(self, number: int) -> None:
        self._questions.clear()
        self._write([(turn, f"mail-a-{number:05}", None) for turn in range(SESSIONS)])
        for turn, session in enumerate(self._ring):
            text, failed = session.call("check_messages")
            assert not failed, text
            self._shown(turn, text)
        questions = dict(self._questions)  # an answer may show further ones
        self._write([(turn, f"mail-b-{number:05}", each) for turn, each in questions.items()])
        for peer in (self._silent, self._writer):
            self._machine.post("/heartbeat", {"id": peer})
        self._send("late", ttl_ms=1)
        self.outcome.expiring += 1

    def _write(self, letters: list[tuple[int, str, int | None]]) -> None:
        """Let sessions write, all at once: to the next, or as an answer to the one before."""
        asked = []
        for turn, text, answered in letters:
            to = self._ids[(turn + (1 if answered is None else -1)) % SESSIONS]
            more = {} if answered is None else {"reply_to": answered}
            call = self._ring[turn].ask_tool("send_message", to_id=to, message=text, **more)
            asked.append((turn, to, text, call))
        for turn, to, text, call in asked:
            told, failed = self._ring[turn].outcome(call)
            if failed:
                self.outcome.refused.append(told)
            else:
                self.outcome.accepted[to].append(text)
                self._shown(turn, told)

    def _shown(self, turn: int, text: str) -> None:
        """Take what a session was shown: any result may have mail in it."""
        for offer in offers_in(text):
            self.outcome.offers[self._ids[turn]].append(offer)
        if found := QUESTION.search(text):
            self._questions[turn] = int(found[1])

    def _restart(self, turn: int) -> None:
        """End a session; its successor is the same peer."""
        self._ring[turn].close()
        self._ring[turn] = self._start(turn)
        assert self._machine.peer_id(self._ring[turn]) == self._ids[turn]
        self.outcome.restarts += 1


def run(machine: Machine, *, seconds: float = HOUR) -> Outcome:
    """Let the traffic of `seconds` pass as fast as it goes, then read what is left."""
    soak = Soak(machine)
    return soak.go_on(seconds)
