"""The machine sleeps, or its clock is set: nobody is taken for gone, and no mail dies of it."""

import signal
import sys

import pytest
from support.brokers import Caller, Rig, make_broker
from support.machine import Machine
from support.waiting import eventually

from claude_peers.core.delivery import DIRECT_TTL
from claude_peers.core.liveness import SILENCE
from claude_peers.core.models import Presence, State
from claude_peers.host import processes
from claude_peers.wire.frames import PING_EVERY

HOUR = 3600.0
TO_2038 = 2_147_483_647.0 - 1_700_000_000.0


@pytest.fixture
async def rig() -> Rig:
    """Return a broker that makes its rounds."""
    made = await make_broker()
    made.broker.keep_time()
    return made


async def round_of(rig: Rig, *, after: float = PING_EVERY) -> None:
    """Let time pass, then do what a leader does again and again."""
    rig.clock.passed += after
    rig.broker.keep_time()
    await rig.broker.peers.sweep()
    await rig.broker.tidy()


def presence(rig: Rig, peer_id: str) -> Presence:
    peer = rig.broker.roster.get(peer_id)
    assert peer is not None
    return peer.presence


@pytest.mark.anyio
@pytest.mark.fault("F25")
async def test_after_a_sleep_everybody_has_time_to_be_heard(rig: Rig):
    wakes, gone = [(await rig.join()).peer.id for _ in range(2)]
    number = (await rig.send(wakes)).message.id
    assert await rig.poll(wakes) == [number]

    await round_of(rig, after=8 * HOUR)

    assert (presence(rig, wakes), presence(rig, gone)) == (Presence.PRESENT,) * 2
    assert await rig.states(number) != [State.DEAD.value]
    for _ in range(round(SILENCE / PING_EVERY) + 1):
        await round_of(rig)
        await rig.broker.peers.heartbeat(Caller(), wakes)
    assert (presence(rig, wakes), presence(rig, gone)) == (Presence.PRESENT, Presence.AWAY)


@pytest.mark.anyio
@pytest.mark.fault("F25")
async def test_who_asks_before_the_first_round_after_a_sleep_is_told_no_less(rig: Rig):
    peer_id = (await rig.join()).peer.id
    rig.clock.passed += 8 * HOUR
    await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.PRESENT


@pytest.mark.bug("U12")
@pytest.mark.anyio
@pytest.mark.parametrize("set_by", [-HOUR, HOUR, TO_2038], ids=["-1 h", "+1 h", "2038"])
@pytest.mark.fault("F24")
async def test_a_clock_that_is_set_ends_no_mail_and_nobody_and_keeps_the_order(rig: Rig, set_by):
    ann, bob = [(await rig.join()).peer.id for _ in range(2)]
    away = (await rig.join()).peer.id
    await rig.broker.peers.heartbeat(Caller(), away)
    before = [(await rig.send(bob, f"before {n}", from_id=ann)).message.id for n in range(3)]

    rig.clock.stepped = set_by
    await round_of(rig)
    after = [(await rig.send(bob, f"after {n}", from_id=ann)).message.id for n in range(3)]
    await round_of(rig)

    assert await rig.unread(bob) == [*before, *after]
    assert [presence(rig, each) for each in (ann, bob, away)] == [Presence.PRESENT] * 3
    rig.clock.stepped = 0.0
    await round_of(rig)
    assert await rig.unread(bob) == [*before, *after]
    ledger = await rig.store.ledger()
    assert (ledger.accepted, ledger.balanced) == (6, True)


@pytest.mark.anyio
@pytest.mark.fault("F24")
async def test_mail_dies_at_its_time_whatever_was_set_before(rig: Rig):
    peer_id = (await rig.join()).peer.id
    number = (await rig.send(peer_id)).message.id
    rig.clock.stepped = HOUR
    await round_of(rig)
    await round_of(rig, after=DIRECT_TTL - HOUR)
    assert await rig.states(number) == [State.QUEUED.value]
    await round_of(rig, after=HOUR)
    assert await rig.states(number) == [State.DEAD.value]


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.fault("F25")
def test_sessions_that_all_slept_go_on_as_the_same_peers(machine: Machine):
    sessions = [machine.session() for _ in range(3)]
    for session in sessions:
        session.list_prompts()
    ids = [machine.peer_id(session) for session in sessions]
    # Whoever is listed may not be stored yet; who is told its id is.
    assert all(peer in each.call("whoami")[0] for each, peer in zip(sessions, ids, strict=True))
    assert not sessions[0].call("send_message", to_id=ids[1], message="before the sleep")[1]
    for session in sessions:
        session.kill(signal.SIGSTOP)
    for session in sessions:
        eventually(lambda pid=session.pid: processes.is_stopped(pid), what="sleep")
    for session in sessions:
        session.kill(signal.SIGCONT)

    machine.wait_for_broker()
    assert not sessions[2].call("send_message", to_id=ids[1], message="after the sleep")[1]
    assert sessions[1].wait_for_push("after the sleep")
    shown = sessions[1].call("check_messages")[0]
    assert shown.index("before the sleep") < shown.index("after the sleep")
    assert [machine.peer_id(session) for session in sessions] == ids
    assert len(machine.peers()) == len(ids)
