"""Ten real sessions, and the one that is the broker dies, ends, or is stopped under load."""

import signal
import sys
from collections.abc import Callable

import pytest
from support import http
from support.machine import Machine
from support.mcp import Session
from support.traffic import Reader, Traffic, pushed, read_all, watching
from support.waiting import eventually

from claude_peers.host import processes

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

SESSIONS = 10
UNLIMITED = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

Tell = Callable[[str], None]
Strike = Callable[[Machine, Session], None]


def kill(machine: Machine, victim: Session) -> None:
    victim.kill(signal.SIGKILL)
    machine.wait_for_broker(other_than=victim.pid)


def terminate(machine: Machine, victim: Session) -> None:
    victim.kill(signal.SIGTERM)
    assert victim.process.wait(10) == 0
    machine.wait_for_broker(other_than=victim.pid)


def stop(machine: Machine, victim: Session) -> None:
    victim.kill(signal.SIGSTOP)
    eventually(lambda: processes.is_stopped(victim.pid), what="stopped")
    eventually(lambda: not processes.is_stopped(victim.pid), timeout=20, what="woken")
    assert machine.wait_for_broker() == victim.pid


def crowd(machine: Machine, count: int = SESSIONS) -> dict[str, Session]:
    """Start sessions one by one, so that the first leads, and return them by peer id."""
    machine.environ.update(UNLIMITED)
    started: dict[str, Session] = {}
    for _ in range(count):
        session = machine.session()
        session.list_prompts()
        started[machine.peer_id(session)] = session
    return started


def alive(sessions: dict[str, Session]) -> dict[str, int]:
    return {peer_id: each.pid for peer_id, each in sessions.items() if each.process.poll() is None}


def listed(machine: Machine) -> dict[str, int]:
    return {peer["id"]: peer["pid"] for peer in machine.peers()}


def victim_of(machine: Machine, spared: tuple[Session, ...]) -> Session:
    """Return the session that is the broker; one that is spared hands over first."""
    leader = machine.leader()
    while leader in spared:
        assert machine.cli("kill-broker").returncode == 0
        machine.wait_for_broker(other_than=leader.pid)
        leader = machine.leader()
    return leader


def strike_under_load(machine: Machine, strike: Strike, tell: Tell, *, times: int) -> list[int]:
    """Strike the broker while one session sends to two others; return the epochs there were.

    One of the two reads all the time, the other waits for pushes and reads at the end.
    """
    sessions = crowd(machine)
    waits, keen, sender = list(sessions.values())[-3:]
    to_waits, to_keen, _ = list(sessions)[-3:]
    with watching(machine.port) as watch:
        reader = Reader(keen)
        streams = Traffic(sender, to_waits), Traffic(sender, to_keen)
        streams[0].flows()
        for _ in range(times):
            strike(machine, victim_of(machine, (waits, keen, sender)))
            streams[0].flows()
        to_wait, to_read = (stream.stop() for stream in streams)
        assert [stream.refused for stream in streams] == [[], []]

        assert reader.stop() == to_read
        eventually(lambda: len(pushed(waits)) >= len(to_wait), what="pushes")
        assert pushed(waits) == to_wait
        assert read_all(waits) == to_wait
        seen = pushed(keen)
        assert seen == [text for text in to_read if text in set(seen)]

        eventually(lambda: listed(machine) == alive(sessions), what="the surviving peers")
        ledger = machine.post("/ledger")
        assert ledger["balanced"]
        assert ledger["accepted"] == len(to_wait) + len(to_read)
    count = len(to_wait) + len(to_read)
    tell(f"{count} messages, epochs {watch.epochs}: 0 lost, doubled or out of order")
    assert watch.epochs == sorted(set(watch.epochs)), watch.leaders
    return watch.epochs


@posix
@pytest.mark.fault("F3")
def test_no_message_is_lost_when_the_leader_is_killed_five_times_in_a_row(machine: Machine, tell):
    epochs = strike_under_load(machine, kill, tell, times=5)

    assert len(epochs) >= 6  # who led only for a moment may not have been seen


@pytest.mark.bug("U6")
@posix
@pytest.mark.fault("F2")
def test_no_message_is_lost_when_the_leader_is_killed(machine: Machine, tell):
    assert len(strike_under_load(machine, kill, tell, times=1)) >= 2


@pytest.mark.bug("U7")
@posix
@pytest.mark.fault("F4")
def test_no_message_is_lost_when_the_leader_is_asked_to_end(machine: Machine, tell):
    assert len(strike_under_load(machine, terminate, tell, times=2)) >= 3


@posix
@pytest.mark.fault("F8")
def test_a_stopped_leader_is_woken_and_stays_the_leader(machine: Machine, tell):
    assert len(strike_under_load(machine, stop, tell, times=1)) == 1


@pytest.mark.bug("U2")
@posix
def test_mail_for_a_leader_that_dies_waits_for_its_successor(machine: Machine):
    sessions = crowd(machine, 4)
    receiver, *_, sender = sessions.values()
    receiver_id = next(iter(sessions))
    assert machine.leader() is receiver
    stream = Traffic(sender, receiver_id)
    stream.flows()

    kill(machine, receiver)
    stream.flows()
    accepted = stream.stop()
    successor = machine.session(cwd=machine.folder("s0"))
    successor.list_prompts()

    assert machine.peer_id(successor) == receiver_id
    assert stream.refused == []
    assert read_all(successor) == accepted
    assert machine.post("/ledger")["balanced"]


@posix
def test_the_named_standby_leads_next(machine: Machine):
    sessions = list(crowd(machine, 4).values())
    standby = http.get(machine.port, "/status").json()["standby"]
    assert standby in [each.pid for each in sessions[1:]]

    machine.leader().kill()

    assert machine.wait_for_broker(other_than=sessions[0].pid) == standby
