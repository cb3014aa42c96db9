"""Being there, being gone, being found, and coming back after a silence."""

import asyncio

import anyio
import pytest
from support.brokers import LEADER, Caller, make_broker

from claude_peers.broker import broker as broker_module
from claude_peers.broker import peers as peers_module
from claude_peers.broker.registration import hash_token
from claude_peers.core.errors import NotYourPeerError, StoreError
from claude_peers.core.limits import SUMMARY
from claude_peers.core.liveness import FORGET, SILENCE
from claude_peers.core.models import Peer, PeerId, Presence, Process
from claude_peers.wire.records import ListPeersRequest

pytestmark = pytest.mark.anyio

OURS = {"proof": "the right answer"}


@pytest.fixture
async def rig():
    return await make_broker()


async def listed(rig, **fields) -> list[str]:
    return [peer.id for peer in await rig.broker.peers.list_peers(ListPeersRequest(**fields))]


def presence(rig, peer_id: str) -> Presence:
    return rig.broker.roster.get(peer_id).presence


# The list


async def test_everybody_present_is_listed_but_the_one_who_asks(rig):
    first, second = (await rig.join()).peer.id, (await rig.join()).peer.id
    assert await listed(rig) == [first, second]
    assert await listed(rig, exclude_id=first) == [second]


async def test_a_scope_limits_the_list(rig):
    here = (await rig.join(cwd="/r", git_root="/r")).peer.id
    tree = (await rig.join(cwd="/r/src", git_root="/r")).peer.id
    await rig.join(cwd="/elsewhere")
    assert await listed(rig, scope="directory", cwd="/r") == [here]
    assert await listed(rig, scope="repo", cwd="/r", git_root="/r") == [here, tree]


async def test_a_live_connection_counts_as_seen_just_now(rig):
    linked, other = (await rig.join()).peer.id, (await rig.join()).peer.id
    rig.transport.linked.add(linked)
    rig.clock.passed = 7.0
    shown = {
        peer.id: peer.last_seen for peer in await rig.broker.peers.list_peers(ListPeersRequest())
    }
    assert shown[linked] == "2023-11-14T22:13:27.000Z"
    assert shown[other] == "2023-11-14T22:13:20.000Z"


async def test_whose_process_is_gone_is_not_listed_any_more(rig):
    gone, _ = await rig.joins_as_process(41)
    stays, _ = await rig.joins_as_process(42)
    rig.machine.end(41)
    assert await listed(rig) == [stays]
    assert presence(rig, gone) is Presence.DEPARTED


@pytest.mark.bug("U11")
async def test_the_processes_of_many_are_not_looked_at_for_each_list(rig, monkeypatch):
    monkeypatch.setattr(peers_module, "PROBED", 1)
    gone, _ = await rig.joins_as_process(41)
    stays, _ = await rig.joins_as_process(42)
    rig.machine.end(41)
    assert await listed(rig) == [gone, stays]
    await rig.broker.peers.sweep()
    assert await listed(rig) == [stays]


# Who is gone


@pytest.mark.bug("U5")
@pytest.mark.fault("F33")
async def test_a_pid_that_was_given_to_another_process_is_gone(rig):
    peer_id, _ = await rig.joins_as_process(41)
    rig.machine.start(41, "evening")
    await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.DEPARTED


async def test_a_live_connection_is_proof_of_life(rig):
    peer_id = (await rig.join()).peer.id
    rig.transport.linked.add(peer_id)
    rig.clock.passed = SILENCE * 10
    await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.PRESENT


@pytest.mark.bug("P5")
async def test_who_has_no_process_lives_by_its_signs_of_life(rig):
    beats, silent = (await rig.join()).peer.id, (await rig.join()).peer.id
    rig.clock.passed = SILENCE
    await rig.broker.peers.heartbeat(Caller(), beats)
    rig.clock.passed += 1
    await rig.broker.peers.sweep()
    assert (presence(rig, beats), presence(rig, silent)) == (Presence.PRESENT, Presence.AWAY)


@pytest.mark.fault("F24")
async def test_a_step_of_the_wall_clock_ends_nobody(rig):
    peer_id = (await rig.join()).peer.id
    rig.clock.stepped = SILENCE * 100
    await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.PRESENT


async def test_who_can_be_succeeded_is_away_and_everybody_else_departed(rig):
    rig.machine.start(41)
    keyed = (await rig.join(pid=41, keys=("live:1",), **OURS)).peer.id
    plain, _ = await rig.joins_as_process(42)
    rig.machine.running.clear()
    await rig.broker.peers.sweep()
    assert (presence(rig, keyed), presence(rig, plain)) == (Presence.AWAY, Presence.DEPARTED)
    assert {p.id: p.presence for p in await rig.store.peers()} == {
        keyed: Presence.AWAY,
        plain: Presence.DEPARTED,
    }


async def test_who_comes_back_while_others_are_let_go_is_not_let_go(rig, monkeypatch):
    rig.machine.start(41)
    rig.machine.start(42)
    await rig.join(pid=41, **OURS)
    second = await rig.join(pid=42, keys=("k",), **OURS)
    rig.machine.running.clear()
    saving, go_on = asyncio.Event(), asyncio.Event()
    save = rig.store.save_peer

    async def slowly(peer):
        saving.set()
        await go_on.wait()
        await save(peer)

    monkeypatch.setattr(rig.store, "save_peer", slowly)
    sweeping = asyncio.ensure_future(rig.broker.peers.sweep())
    with anyio.fail_after(10):
        await saving.wait()
    joining = asyncio.ensure_future(rig.join(token=second.token, **OURS))
    go_on.set()
    await asyncio.gather(sweeping, joining)
    assert presence(rig, second.peer.id) is Presence.PRESENT


async def test_the_end_of_a_connection_is_followed_by_two_looks(rig, monkeypatch):
    monkeypatch.setattr(broker_module, "DYING", 0.0)
    looks = 0
    looked = asyncio.Event()
    peer_id, _ = await rig.joins_as_process(41)

    def alive(process):
        nonlocal looks
        looks += 1
        if looks == 2:
            rig.machine.end(41)
            looked.set()
        return rig.machine.identify(41) == process

    monkeypatch.setattr(rig.machine, "alive", alive)
    object.__setattr__(rig.broker._context.here, "alive", alive)
    rig.broker.connection_ended(peer_id)
    with anyio.fail_after(10):
        await looked.wait()
    await rig.settled()
    assert presence(rig, peer_id) is Presence.DEPARTED


async def test_a_sweep_that_fails_in_the_background_is_logged(rig, caplog):
    peer_id, _ = await rig.joins_as_process(41)
    rig.machine.end(41)
    rig.store.broken.add("save_peer")
    rig.broker.connection_ended(peer_id)
    await rig.settled()
    await asyncio.sleep(0)
    assert "background work failed: The database failed" in caplog.text
    assert presence(rig, peer_id) is Presence.PRESENT


async def test_background_work_that_is_cancelled_is_no_failure(rig, caplog):
    rig.broker.in_background(asyncio.sleep(100))
    (task,) = rig.broker._context._background
    task.cancel()
    await rig.settled()
    await asyncio.sleep(0)
    assert (caplog.text, rig.broker._context._background) == ("", set())


# Coming back


async def test_who_was_only_silent_is_there_again_with_its_next_sign_of_life(rig):
    peer_id = (await rig.join(name="main")).peer.id
    rig.clock.passed = SILENCE + 1
    await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.AWAY
    await rig.broker.peers.heartbeat(Caller(), peer_id)
    assert await listed(rig) == [peer_id]
    assert (await rig.send("main")).message.to_id == peer_id


async def test_a_poll_is_a_sign_of_life(rig):
    peer_id = (await rig.join()).peer.id
    number = (await rig.send(peer_id)).message.id
    rig.clock.passed = SILENCE + 1
    await rig.broker.peers.sweep()
    assert await rig.poll(peer_id) == [number]
    assert presence(rig, peer_id) is Presence.PRESENT


async def test_who_comes_back_gets_another_name_if_its_own_was_taken(rig):
    peer_id = (await rig.join(name="main")).peer.id
    rig.clock.passed = SILENCE + 1
    await rig.broker.peers.sweep()
    await rig.join(name="main")
    await rig.broker.peers.heartbeat(Caller(), peer_id)
    assert rig.broker.roster.get(peer_id).name == "main-2"


async def test_somebody_elses_sign_of_life_brings_nobody_back(rig):
    joined = await rig.join(**OURS)
    rig.clock.passed = SILENCE + 1
    await rig.broker.peers.sweep()
    await rig.broker.peers.heartbeat(Caller(), joined.peer.id)
    assert presence(rig, joined.peer.id) is Presence.AWAY
    await rig.broker.peers.heartbeat(Caller(token_hash=hash_token(joined.token)), joined.peer.id)
    assert presence(rig, joined.peer.id) is Presence.PRESENT


async def test_a_sign_of_life_after_the_end_of_a_process_brings_nobody_back(rig):
    peer_id, caller = await rig.joins_as_process(41)
    rig.machine.end(41)
    await rig.broker.peers.sweep()
    await rig.broker.peers.heartbeat(caller, peer_id)
    assert presence(rig, peer_id) is Presence.DEPARTED


async def test_who_left_is_not_brought_back_by_a_late_sign_of_life(rig):
    peer_id, caller = await rig.joins_as_process(41)
    await rig.broker.peers.unregister(caller, peer_id)
    await rig.broker.peers.heartbeat(caller, peer_id)
    assert presence(rig, peer_id) is Presence.DEPARTED


async def test_a_sign_of_life_of_nobody_is_taken_without_a_word(rig):
    await rig.broker.peers.heartbeat(Caller(), "nobody")
    assert await listed(rig) == []


# Leaving and changing


@pytest.mark.bug("U2")
async def test_who_unregisters_keeps_its_mail(rig):
    peer_id, caller = await rig.joins_as_process(41)
    number = (await rig.send(peer_id)).message.id
    await rig.broker.peers.unregister(caller, peer_id)
    assert presence(rig, peer_id) is Presence.DEPARTED
    assert await rig.unread(peer_id) == [number]


@pytest.mark.parametrize("act", ["unregister", "set_summary"])
async def test_nobody_acts_for_another_process(rig, act):
    peer_id, _ = await rig.joins_as_process(41)
    arguments = (Caller(), peer_id) if act == "unregister" else (Caller(), peer_id, "mine now")
    with pytest.raises(NotYourPeerError):
        await getattr(rig.broker.peers, act)(*arguments)
    assert presence(rig, peer_id) is Presence.PRESENT


async def test_acting_for_nobody_does_nothing(rig):
    await rig.broker.peers.unregister(Caller(), "nobody")
    await rig.broker.peers.set_summary(Caller(), "nobody", "x")
    assert list(rig.broker.roster) == []


async def test_where_tokens_are_required_nobody_acts_without_one():
    rig = await make_broker(require_token=True)
    joined = await rig.join()
    bearer = Caller(token_hash=hash_token(joined.token))
    await rig.broker.peers.set_summary(bearer, joined.peer.id, "mine")
    for stranger in (joined.peer.id, "nobody"):
        with pytest.raises(NotYourPeerError):
            await rig.broker.peers.unregister(Caller(), stranger)
    await rig.broker.peers.unregister(Caller(knows_secret=True), "nobody")


async def test_a_summary_is_changed_durably_and_clipped(rig):
    peer_id = (await rig.join()).peer.id
    await rig.broker.peers.set_summary(Caller(), peer_id, "x" * 2 * SUMMARY)
    (stored,) = await rig.store.peers()
    assert stored.summary == rig.broker.roster.get(peer_id).summary == "x" * SUMMARY


# Over time


async def test_who_is_gone_for_long_is_forgotten(rig):
    gone, _ = await rig.joins_as_process(41)
    stays, _ = await rig.joins_as_process(42)
    rig.machine.end(41)
    await rig.broker.peers.sweep()
    rig.clock.passed = FORGET
    await rig.broker.tidy()
    assert rig.broker.roster.get(gone) is not None
    rig.clock.passed = FORGET + 1
    await rig.broker.tidy()
    assert rig.broker.roster.get(gone) is None
    assert [peer.id for peer in await rig.store.peers()] == [stays]


async def test_forgetting_nobody_costs_nothing(rig):
    await rig.join()
    rig.clock.passed = FORGET + 1
    await rig.broker.tidy()
    assert "forget_peers" not in rig.store.calls


async def test_a_new_leader_knows_everybody_and_gives_them_time(rig):
    peer_id = (await rig.join(name="main")).peer.id
    after = await make_broker(rig.store)
    assert after.broker.epoch == rig.broker.epoch + 1
    after.clock.passed = SILENCE
    await after.broker.peers.sweep()
    assert await listed(after) == [peer_id]


async def test_a_new_leader_takes_time_from_its_own_beginning():
    first = await make_broker()
    await first.join()
    later = await make_broker(first.store)
    later.clock.passed = 10 * SILENCE
    await later.broker.roster.load(now=later.clock.passed)
    await later.broker.peers.sweep()
    assert len(later.broker.roster.present()) == 1


async def test_everybody_of_an_earlier_boot_is_gone(rig):
    await rig.store.save_peer(
        Peer(id=PeerId("old"), name="old", process=Process(pid=41, started="x"), boot="earlier")
    )
    rig.machine.start(41, "x")
    await rig.broker.open(LEADER)
    await rig.broker.peers.sweep()
    assert presence(rig, "old") is Presence.DEPARTED


async def test_a_peer_put_without_a_sign_of_life_is_not_silent_yet(rig):
    await rig.broker.roster.put(Peer(id=PeerId("new"), name="new"))
    rig.clock.passed = 10 * SILENCE
    await rig.broker.peers.sweep()
    assert presence(rig, "new") is Presence.PRESENT


async def test_letting_go_that_is_not_stored_is_tried_again(rig):
    peer_id, _ = await rig.joins_as_process(41)
    rig.machine.end(41)
    rig.store.broken.add("save_peer")
    with pytest.raises(StoreError):
        await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.PRESENT
    rig.store.broken.clear()
    await rig.broker.peers.sweep()
    assert presence(rig, peer_id) is Presence.DEPARTED
