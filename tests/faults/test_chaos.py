"""Thirty sessions of which any may be killed, stopped or ended at any time, and new ones come.

`CLAUDE_PEERS_CHAOS_SECONDS` makes it longer, `CLAUDE_PEERS_CHAOS_SEED` repeats its choices.
"""

import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable

import pytest
from support.machine import Machine
from support.mcp import Session
from support.traffic import Reader, Traffic, pushed, read_all, watching
from support.waiting import eventually

from claude_peers.host import processes

SECONDS = float(os.environ.get("CLAUDE_PEERS_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("CLAUDE_PEERS_CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
SESSIONS = 30
UNLIMITED = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}

pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]


class Chaos:
    """Does things to sessions, by chance; those that are counted on are spared."""

    def __init__(self, machine: Machine, others: list[Session]) -> None:
        self.takeovers: list[float] = []
        self.done: list[str] = []
        self._machine = machine
        self._others = others
        self._chance = random.Random(SEED)
        self._choices: list[Callable[[], None]] = [
            *(self.kill_the_leader,) * 3,
            self.stop_the_leader,
            self.kill,
            self.terminate,
            self.stop_and_go_on,
        ]

    def act(self) -> None:
        """Do one thing, then let newcomers take the places of those that are gone."""
        act = self._chance.choice(self._choices)
        self.done.append(act.__name__)
        act()
        self._others[:] = [each for each in self._others if each.process.poll() is None]
        if len(self._others) < SESSIONS - 3:
            newcomer = self._machine.session()
            newcomer.list_prompts()
            self._others.append(newcomer)

    def kill_the_leader(self) -> None:
        leader = self._leader()
        begun = time.monotonic()
        leader.kill(signal.SIGKILL)
        self._machine.wait_for_broker(other_than=leader.pid)
        self.takeovers.append(time.monotonic() - begun)
        leader.process.wait(10)

    def stop_the_leader(self) -> None:
        leader = self._leader()
        leader.kill(signal.SIGSTOP)
        eventually(lambda: processes.is_stopped(leader.pid), what="stopped")
        eventually(lambda: not processes.is_stopped(leader.pid), timeout=20, what="woken")

    def kill(self) -> None:
        victim = self._chance.choice(self._others)
        victim.kill(signal.SIGKILL)
        victim.process.wait(10)

    def terminate(self) -> None:
        victim = self._chance.choice(self._others)
        victim.kill(signal.SIGTERM)
        victim.process.wait(10)

    def stop_and_go_on(self) -> None:
        stopped = self._chance.sample(self._others, 3)
        for each in stopped:
            each.kill(signal.SIGSTOP)
        self._machine.wait_for_broker()
        for each in stopped:
            each.kill(signal.SIGCONT)

    def _leader(self) -> Session:
        """Return the session that leads; one that is spared hands over first."""
        while (leader := self._machine.leader()) not in self._others:
            assert self._machine.cli("kill-broker").returncode == 0
            self._machine.wait_for_broker(other_than=leader.pid)
        return leader


def figures(seconds: list[float]) -> str:
    cut = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    told = ", ".join(f"p{n} {1000 * cut[n - 1]:.0f} ms" for n in (50, 90, 99))
    return f"{len(seconds)} take-overs: {told}"


@pytest.mark.fault("F2", "F3", "F8")
@pytest.mark.timeout(SECONDS + 240)
def test_in_chaos_nothing_is_lost_doubled_or_out_of_order(machine: Machine, unmeasured):
    print(f"CLAUDE_PEERS_CHAOS_SEED={SEED}")
    machine.environ.update(UNLIMITED)
    others = [machine.session() for _ in range(SESSIONS - 3)]
    waits, keen, sender = (machine.session() for _ in range(3))
    for session in (*others, waits, keen, sender):
        session.list_prompts()
    to_waits, to_keen = machine.peer_id(waits), machine.peer_id(keen)
    chaos = Chaos(machine, others)
    end = time.monotonic() + SECONDS
    with watching(machine.port) as watch:
        reader = Reader(keen)
        streams = Traffic(sender, to_waits), Traffic(sender, to_keen)
        while time.monotonic() < end:
            chaos.act()
            streams[0].flows(5)
        sent, kept = (stream.stop() for stream in streams)
        assert [stream.refused for stream in streams] == [[], []], chaos.done

        assert reader.stop() == kept, chaos.done
        eventually(lambda: len(pushed(waits)) >= len(sent), what="pushes")
        assert pushed(waits) == sent, chaos.done
        assert read_all(waits) == sent, chaos.done
        ledger = machine.post("/ledger")
    print(f"{len(chaos.done)} acts, {len(sent) + len(kept)} messages, {figures(chaos.takeovers)}")
    assert ledger["balanced"]
    assert ledger["accepted"] == len(sent) + len(kept)
    assert watch.epochs == sorted(set(watch.epochs)), watch.leaders
