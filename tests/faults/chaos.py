"""Many sessions of which any may be killed, stopped or ended at any moment, while others write.

An act follows the last one after 50 to 500 ms and waits for nothing, so that it strikes also while
a new leader takes office, a newcomer joins, or stopped processes come back. Acts are dealt from a
shuffled deck: every forty acts strike the leader 25 times. Newcomers replace the dead beside it.

Three sessions are spared, for they are counted on: one writes to two others, of which one reads all
the time and the other at the end.
"""

import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

from support.machine import Machine
from support.mcp import Session
from support.traffic import Account, Reader, Traffic, Watch, account, pushes, rest_of, watching
from support.waiting import eventually

from claude_peers.host import processes

SESSIONS = 30
SPARED = 3
AT_ONCE = 6
"""Newcomers that start beside each other."""
FEWEST = 8
"""Sessions below which acts wait for newcomers: somebody must be left to lead."""
PAUSE = 0.05, 0.5
"""Seconds between two acts."""
SLEEP = 2
"""Acts for which stopped sessions sleep."""
UNLIMITED = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}
DECK = {
    "kill_the_leader": 18,
    "kill_the_stopped_leader": 3,
    "terminate_the_leader": 3,
    "stop_the_leader": 1,
    "kill": 6,
    "terminate": 3,
    "end": 2,
    "stop_and_go_on": 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        acts: how often each act was done.
        kills: seconds from the SIGKILL of a leader until another one answered.
        handovers: seconds from asking a leader to end until another one answered.
        accepted: messages that were accepted.
        refused: what senders were told instead, if they were refused.
        pushed: the account of what was pushed to who reads at the end.
        read: the account of what it read then.
        kept: the account of what was read all the time.
        ledger: the broker's own account.
        epochs: one for each process that was seen to lead.
    """

    acts: dict[str, int]
    kills: list[float]
    handovers: list[float]
    accepted: int
    refused: list[str]
    pushed: Account
    read: Account
    kept: Account
    ledger: dict[str, Any]
    epochs: list[int]

    def total(self, what: str) -> int:
        """Return one figure of the three accounts together."""
        return sum(getattr(each, what) for each in (self.pushed, self.read, self.kept))


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the maximum in ms; nothing of nothing."""
    if not seconds:
        return {}
    cut = statistics.quantiles(seconds, n=100, method="inclusive") if seconds[1:] else seconds * 99
    told = {f"p{percent}": cut[percent - 1] for percent in (50, 90, 99)} | {"max": max(seconds)}
    return {name: round(1000 * value, 1) for name, value in told.items()}


class Company:
    """The sessions that may be struck, and newcomers for those that are gone."""

    def __init__(self, machine: Machine, size: int) -> None:
        self.here: list[Session] = []
        self._machine = machine
        self._size = size

    def alive(self) -> list[Session]:
        return [each for each in self.here if each.process.poll() is None]

    def fill(self) -> None:
        """Bury who is gone and let newcomers in, some at once."""
        gone = [each for each in self.here if each.process.poll() is not None]
        self.here = [each for each in self.here if each not in gone]
        for each in gone:
            each.close()
        missing = min(AT_ONCE, self._size - len(self.here))
        newcomers = [self._machine.session(handshake=False) for _ in range(missing)]
        for each in newcomers:
            each.initialize()
            each.list_prompts()
        self.here += newcomers

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Keep the company complete meanwhile."""
        end = Event()

        def keep() -> None:
            while not end.wait(0.02):
                self.fill()

        with ThreadPoolExecutor(1) as pool:
            kept: Future[None] = pool.submit(keep)
            try:
                yield
            finally:
                end.set()
        kept.result()  # what went wrong there is not to be missed


class Chaos:
    """Does things to sessions, by chance."""

    def __init__(self, machine: Machine, company: Company, watch: Watch, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._machine = machine
        self._company = company
        self._watch = watch
        self._chance = random.Random(seed)
        self._deck: list[str] = []
        self._asleep: list[tuple[int, Session]] = []
        self._kills: list[tuple[float, int]] = []
        self._handovers: list[tuple[float, int]] = []

    def go_on(self, seconds: float) -> None:
        """Act for so long, then wake who sleeps."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._act()
            time.sleep(self._chance.uniform(*PAUSE))
        self._wake(due=None)

    @property
    def kills(self) -> list[float]:
        """Seconds from each SIGKILL of a leader until another answered."""
        return self._until_another(self._kills)

    @property
    def handovers(self) -> list[float]:
        """Seconds from each request to a leader to end until another answered."""
        return self._until_another(self._handovers)

    # ------------------------------------------------------------------ acts
    def kill_the_leader(self) -> None:
        self._kill_leader(self._leader())

    def kill_the_stopped_leader(self) -> None:
        leader = self._leader()
        leader.kill(signal.SIGSTOP)
        time.sleep(self._chance.uniform(*PAUSE))
        self._kill_leader(leader)

    def terminate_the_leader(self) -> None:
        leader = self._leader()
        self._handovers.append((time.monotonic(), leader.pid))
        leader.kill(signal.SIGTERM)

    def stop_the_leader(self) -> None:
        leader = self._leader()
        leader.kill(signal.SIGSTOP)
        eventually(lambda: processes.is_stopped(leader.pid), what="stopped")
        eventually(lambda: not processes.is_stopped(leader.pid), timeout=20, what="woken")

    def kill(self) -> None:
        self._victim().kill(signal.SIGKILL)

    def terminate(self) -> None:
        self._victim().kill(signal.SIGTERM)

    def end(self) -> None:
        self._victim().end_input()

    def stop_and_go_on(self) -> None:
        for each in self._chance.sample(self._company.alive(), 3):
            each.kill(signal.SIGSTOP)
            self._asleep.append((self.done.total() + SLEEP, each))

    # ---------------------------------------------------------------- inside
    def _act(self) -> None:
        self._wake(due=self.done.total())
        eventually(lambda: len(self._company.alive()) >= FEWEST, timeout=60, what="newcomers")
        if not self._deck:
            self._deck = [*Counter(DECK).elements()]
            self._chance.shuffle(self._deck)
        act = self._deck.pop()
        getattr(self, act)()
        self.done[act] += 1

    def _wake(self, *, due: int | None) -> None:
        """Let those go on whose time has come, all if `due` is None."""
        for when, each in list(self._asleep):
            if due is None or when <= due:
                each.process.send_signal(signal.SIGCONT)  # to who has ended, it does nothing
                self._asleep.remove((when, each))

    def _victim(self) -> Session:
        return self._chance.choice(self._company.alive())

    def _kill_leader(self, leader: Session) -> None:
        self._kills.append((time.monotonic(), leader.pid))
        leader.kill(signal.SIGKILL)

    def _leader(self) -> Session:
        """Return the session that leads; one that is spared hands over first."""
        while True:
            pid = eventually(self._answering, timeout=30, what="a leader")
            found = next((each for each in self._company.alive() if each.pid == pid), None)
            if found is not None:
                return found
            self._depose(pid)

    def _answering(self) -> int | None:
        """Return who leads, unless that is a newcomer who has not shaken hands yet, or dead."""
        pid = self._watch.leader
        known = [*self._company.alive(), *self._machine.sessions[:SPARED]]
        return pid if any(each.pid == pid for each in known) else None

    def _depose(self, pid: int) -> None:
        self._handovers.append((time.monotonic(), pid))
        self._machine.cli("kill-broker")  # it may fail: the leader may be another one by now
        eventually(lambda: self._watch.leader not in (None, pid), timeout=30, what="a successor")
        self.done["depose"] += 1

    def _until_another(self, strikes: list[tuple[float, int]]) -> list[float]:
        seen = sorted((when, pid) for (_, pid), when in self._watch.leaders.items())
        after = (
            next((when - begun for when, pid in seen if when > begun and pid != struck), None)
            for begun, struck in strikes
        )
        return [each for each in after if each is not None]


def run(machine: Machine, *, seconds: float, seed: int) -> Outcome:
    """Start the sessions, let chaos reign for `seconds`, and count what arrived."""
    machine.environ.update(UNLIMITED)
    waits, keen, sender = (machine.session() for _ in range(SPARED))
    for session in (waits, keen, sender):
        session.list_prompts()
    to_waits, to_keen = machine.peer_id(waits), machine.peer_id(keen)
    company = Company(machine, SESSIONS - SPARED)
    while len(company.here) < SESSIONS - SPARED:
        company.fill()
    with watching(machine.port) as watch:
        reader = Reader(keen)
        streams = Traffic(sender, to_waits), Traffic(sender, to_keen)
        chaos = Chaos(machine, company, watch, seed)
        with company.replaced():
            chaos.go_on(seconds)
        sent, kept = (stream.stop() for stream in streams)
        reader.stop()
        # After ten minutes there are so many that to look once takes a second.
        eventually(
            lambda: set(sent) <= {each.text for each in pushes(waits)}, timeout=60, what="pushes"
        )
        return Outcome(
            acts=dict(chaos.done),
            kills=chaos.kills,
            handovers=chaos.handovers,
            accepted=len(sent) + len(kept),
            refused=[text for stream in streams for text in stream.refused],
            pushed=account(sent, pushes(waits)),
            read=account(sent, rest_of(waits)),
            kept=account(kept, reader.offers),
            ledger=machine.post("/ledger"),
            epochs=watch.epochs,
        )
