"""Names that change, mail that follows them, and senders that are muted."""

import asyncio

import anyio
import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import peers as peers_module
from claude_peers.broker.peers import FORWARD, MUTED
from claude_peers.broker.registration import hash_token
from claude_peers.core.errors import (
    AmbiguousPeerError,
    BadRequestError,
    NameTakenError,
    NotYourPeerError,
    PeerNotFoundError,
    SecretRequiredError,
)
from claude_peers.core.limits import KEYS
from claude_peers.core.models import Presence

pytestmark = pytest.mark.anyio

OURS = {"proof": "the right answer"}
USER = Caller(knows_secret=True)


@pytest.fixture
async def rig():
    return await make_broker()


async def rename(rig, peer, name: str):
    return await rig.broker.peers.rename(peer[1], peer[0], name)


async def mute(rig, peer, sender: str, *, muted: bool = True):
    return await rig.broker.peers.mute(peer[1], peer[0], sender, muted=muted)


# Renaming


async def test_who_is_renamed_is_found_under_the_new_name_and_for_a_day_under_the_old(rig):
    ann = await rig.joins_as_process(41, name="ann")
    assert (await rename(rig, ann, "anna")).name == "anna"
    assert (await rig.send("anna")).message.to_id == ann[0]
    rig.clock.passed = FORWARD - 1
    forwarded = (await rig.send("ann")).message
    assert (forwarded.to_id, forwarded.to_name) == (ann[0], "anna")
    rig.clock.passed = FORWARD
    with pytest.raises(PeerNotFoundError):
        await rig.send("ann")
    assert (await rig.store.peers())[0].name == "anna"


async def test_a_new_leader_forwards_as_well(rig):
    ann = await rig.joins_as_process(41, name="ann")
    await rename(rig, ann, "anna")
    after = await make_broker(rig.store)
    assert (await after.send("ann")).message.to_id == ann[0]


async def test_a_name_of_somebody_who_is_there_wins_over_a_former_one(rig):
    ann = await rig.joins_as_process(41, name="ann")
    await rename(rig, ann, "anna")
    other = await rig.joins_as_process(42, name="ann")
    assert (await rig.send("ann")).message.to_id == other[0]


async def test_two_that_had_a_name_are_told_apart_by_the_sender(rig):
    for pid in (41, 42):
        await rename(rig, await rig.joins_as_process(pid, name="ann"), f"new-{pid}")
    with pytest.raises(AmbiguousPeerError):
        await rig.send("ann")


async def test_somebody_who_left_for_good_answers_to_no_former_name(rig):
    ann = await rig.joins_as_process(41, name="ann")
    await rename(rig, ann, "anna")
    await rig.broker.peers.unregister(ann[1], ann[0])
    with pytest.raises(PeerNotFoundError):
        await rig.send("ann")


@pytest.mark.parametrize("name", ["", "Ann", "a b", "-a", "a@b", "x" * 65, "é", "a\n"])
async def test_what_is_no_name_is_refused(rig, name):
    ann = await rig.joins_as_process(41, name="ann")
    with pytest.raises(BadRequestError, match="is no name"):
        await rename(rig, ann, name)
    assert rig.broker.roster.get(ann[0]).name == "ann"


async def test_a_name_that_somebody_has_is_refused_and_so_is_an_id(rig):
    ann = await rig.joins_as_process(41, name="ann")
    bob = await rig.joins_as_process(42, name="bob")
    for taken in ("bob", bob[0]):
        with pytest.raises(NameTakenError, match=taken):
            await rename(rig, ann, taken)
    await rig.broker.peers.unregister(bob[1], bob[0])
    assert (await rename(rig, ann, "bob")).name == "bob"
    with pytest.raises(NameTakenError):
        await rename(rig, ann, bob[0])


async def test_two_that_want_one_name_at_once_do_not_both_get_it(rig):
    ends = [await rig.joins_as_process(pid) for pid in (41, 42)]
    results = await asyncio.gather(
        *(rename(rig, each, "main") for each in ends), return_exceptions=True
    )
    assert [isinstance(each, NameTakenError) for each in results] == [False, True]


async def test_ones_own_name_and_id_may_be_taken(rig):
    ann = await rig.joins_as_process(41, name="ann")
    assert (await rename(rig, ann, "ann")).former == ()
    assert (await rename(rig, ann, ann[0])).name == ann[0]


async def test_going_back_to_a_name_forgets_that_it_was_left(rig):
    ann = await rig.joins_as_process(41, name="ann")
    await rename(rig, ann, "anna")
    assert [name for name, _ in (await rename(rig, ann, "ann")).former] == ["anna"]


async def test_only_so_many_former_names_are_kept(rig):
    ann = await rig.joins_as_process(41, name="ann")
    for n in range(KEYS + 3):
        renamed = await rename(rig, ann, f"ann-{n}")
    assert [name for name, _ in renamed.former] == [f"ann-{n}" for n in range(KEYS + 1, 1, -1)]


async def test_a_former_name_stays_with_who_comes_back(rig):
    joined = await rig.join(name="ann", **OURS)
    bearer = Caller(token_hash=hash_token(joined.token))
    await rename(rig, (joined.peer.id, bearer), "anna")
    again = await rig.join(token=joined.token, **OURS)
    assert (again.peer.name, again.peer.former[0][0]) == ("anna", "ann")


async def test_a_peer_is_renamed_and_muted_for_by_itself_or_its_user_only(rig):
    ann = await rig.joins_as_process(41, name="ann")
    bob = await rig.joins_as_process(42, name="bob")
    for stranger in (bob[1], Caller()):
        with pytest.raises(NotYourPeerError):
            await rename(rig, (ann[0], stranger), "mine")
        with pytest.raises(NotYourPeerError):
            await mute(rig, (ann[0], stranger), "bob")
    for nobody in (USER, Caller()):
        with pytest.raises(PeerNotFoundError):
            await rename(rig, ("nobody", nobody), "mine")
    assert (await rename(rig, (ann[0], USER), "anna")).name == "anna"


# Mail by name


async def left(rig, pid: int, **fields) -> str:
    peer_id, caller = await rig.joins_as_process(pid, **fields)
    await rig.broker.peers.unregister(caller, peer_id)
    return peer_id


PLACE = {"name": "main", "cwd": "/r"}


async def test_mail_by_name_waits_for_the_names_next_holder_there(rig):
    before = await left(rig, 41, **PLACE)
    sent = [(await rig.send("main", str(n))).message for n in range(3)]
    assert {(m.to_id, m.to_name) for m in sent} == {(before, "main")}
    after, _ = await rig.joins_as_process(42, **PLACE)
    assert await rig.unread(after) == [message.id for message in sent]
    assert await rig.unread(before) == []
    assert all(m.inherited for m in await rig.store.unread(after))


async def test_mail_by_id_follows_nobody(rig):
    before, caller = await rig.joins_as_process(41, **PLACE)
    by_id = (await rig.send(before)).message.id
    await rig.broker.peers.unregister(caller, before)
    after, _ = await rig.joins_as_process(42, **PLACE)
    assert (await rig.unread(before), await rig.unread(after)) == ([by_id], [])


@pytest.mark.parametrize(
    "other",
    [{"cwd": "/elsewhere"}, {"name": "rest"}, {"hostname": "far"}],
    ids=["directory", "name", "machine"],
)
async def test_mail_by_name_goes_nowhere_else(rig, other):
    before = await left(rig, 41, **PLACE)
    number = (await rig.send("main")).message.id
    after, _ = await rig.joins_as_process(42, **{**PLACE, **other})
    assert (await rig.unread(before), await rig.unread(after)) == ([number], [])


async def test_mail_of_somebody_who_is_there_is_nobody_elses(rig):
    peer_id, _ = await rig.joins_as_process(41, **PLACE)
    number = (await rig.send("main")).message.id
    other, _ = await rig.joins_as_process(42, **PLACE)
    assert (await rig.unread(peer_id), await rig.unread(other)) == ([number], [])


async def test_mail_of_several_earlier_holders_comes_in_its_order(rig):
    numbers = []
    for pid in (41, 42):
        await left(rig, pid, **PLACE)
        rig.clock.passed += 1
        numbers.append((await rig.send("main")).message.id)
    after, _ = await rig.joins_as_process(43, **PLACE)
    assert await rig.unread(after) == numbers


async def test_who_takes_a_name_is_offered_the_mail_that_waited_for_it(rig):
    await left(rig, 41, **PLACE)
    number = (await rig.send("main")).message.id
    heir = await rig.joins_as_process(42, name="heir", cwd="/r")
    own = (await rig.send(heir[0])).message.id
    rig.transport.delivered.clear()
    await rename(rig, heir, "main")
    assert [message.id for message in rig.transport.delivered] == [number]
    assert await rig.unread(heir[0]) == [number, own]


async def test_a_message_by_directory_waits_as_one_by_name(rig):
    await left(rig, 41, **PLACE)
    before, _ = await rig.joins_as_process(42, **PLACE)
    message = (await rig.send("/r")).message
    assert (message.to_id, message.to_name) == (before, "main")


# Muting


async def test_a_muted_senders_messages_are_neither_offered_nor_polled(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42, name="bob")
    assert (await mute(rig, ann, "bob")).id == bob[0]
    held = (await rig.send(ann[0], caller=bob[1], from_id=bob[0])).message
    other = (await rig.send(ann[0])).message
    assert (held.state.value, other.state.value) == ("held", "queued")
    assert rig.transport.delivered == [other]
    assert await rig.poll(ann[0], ann[1]) == [other.id]
    assert [m.id for m in await rig.broker.mail.peek(ann[1], ann[0])] == []


async def test_what_was_held_is_offered_in_order_once_the_sender_is_unmuted(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    await mute(rig, ann, bob[0])
    numbers = [(await rig.send(ann[0], caller=bob[1], from_id=bob[0])).message.id for _ in range(3)]
    await mute(rig, ann, bob[0], muted=False)
    assert [message.id for message in rig.transport.delivered] == numbers
    assert await rig.poll(ann[0], ann[1]) == numbers
    await mute(rig, ann, bob[0], muted=False)
    assert rig.broker.roster.get(ann[0]).muted == ()


async def test_who_waits_for_mail_gets_what_was_held(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    await mute(rig, ann, bob[0])
    number = (await rig.send(ann[0], caller=bob[1], from_id=bob[0])).message.id
    waiting = asyncio.ensure_future(rig.poll(ann[0], ann[1], wait_s=50.0))
    await anyio.wait_all_tasks_blocked()
    await mute(rig, ann, bob[0], muted=False)
    with anyio.fail_after(10):
        assert await waiting == [number]


async def test_a_mute_outlives_the_broker_and_the_session(rig):
    ann, bob = await rig.join(**OURS), await rig.joins_as_process(42)
    await mute(rig, (ann.peer.id, USER), bob[0])
    after = await make_broker(rig.store)
    after.machine.start(42)
    again = await after.join(token=ann.token, **OURS)
    assert again.peer.muted == (bob[0],)
    sent = await after.send(ann.peer.id, caller=bob[1], from_id=bob[0])
    assert sent.message.state.value == "held"


async def test_muting_twice_is_muting_once_and_so_many_may_be_muted(rig, monkeypatch):
    monkeypatch.setattr(peers_module, "MUTED", 2)
    ann = await rig.joins_as_process(41)
    others = [(await rig.joins_as_process(pid))[0] for pid in (42, 43, 44)]
    for other in (others[0], others[0], *others[1:]):
        await mute(rig, ann, other)
    assert rig.broker.roster.get(ann[0]).muted == (others[2], others[1])
    assert MUTED > 100


async def test_nobody_can_be_muted_who_is_not_known(rig):
    ann = await rig.joins_as_process(41)
    with pytest.raises(PeerNotFoundError):
        await mute(rig, ann, "nobody")


# Routes and keys


async def test_a_route_is_noted_without_a_write_and_clipped(rig):
    ann = await rig.joins_as_process(41)
    saved = rig.store.calls.count("save_peer")
    rig.broker.peers.set_route(ann[1], ann[0], "rewake\n" + "x" * 100, "idle")
    peer = rig.broker.roster.get(ann[0])
    assert (peer.route[:8], len(peer.route), peer.activity) == ("rewake x", 64, "idle")
    assert rig.store.calls.count("save_peer") == saved
    rig.broker.peers.set_route(Caller(), "nobody", "rewake", "idle")


async def keyed(rig, *keys: str, pid: int = 41):
    rig.machine.start(pid)
    joined = await rig.join(pid=pid, keys=keys, **OURS)
    return joined.peer.id, Caller(token_hash=hash_token(joined.token))


async def test_a_session_that_was_cleared_and_then_crashed_is_resumed_by_its_new_id(rig):
    peer_id, caller = await keyed(rig, "live:1", "resume:old")
    await rig.broker.peers.add_keys(caller, peer_id, ("resume:new",))
    number = (await rig.send(peer_id)).message.id
    rig.machine.end(41)
    after, bearer = await keyed(rig, "live:2", "resume:new", pid=42)
    assert after == peer_id
    assert await rig.poll(after, bearer) == [number]


async def test_a_session_cleared_many_times_is_still_known_by_its_process(rig):
    peer_id, caller = await keyed(rig, "live:1", "resume:0")
    for n in range(3 * KEYS):
        await rig.broker.peers.add_keys(caller, peer_id, (f"resume:{n}",))
    keys = rig.broker.roster.get(peer_id).keys
    assert keys[:2] == ("live:1", f"resume:{3 * KEYS - 1}")
    assert len(keys) == KEYS
    rig.machine.start(42)
    assert (await rig.join(pid=42, keys=("live:1",), **OURS)).secondary


async def test_keys_that_are_known_are_not_written_again(rig):
    peer_id, caller = await keyed(rig, "live:1", "resume:1")
    saved = rig.store.calls.count("save_peer")
    await rig.broker.peers.add_keys(caller, peer_id, ("resume:1",))
    assert rig.store.calls.count("save_peer") == saved


async def test_keys_are_taken_only_from_who_proved_the_secret(rig):
    ann = await rig.joins_as_process(41)
    with pytest.raises(SecretRequiredError):
        await rig.broker.peers.add_keys(ann[1], ann[0], ("resume:1",))
    with pytest.raises(SecretRequiredError):
        await rig.broker.peers.add_keys(Caller(), "nobody", ("resume:1",))
    peer_id, _ = await keyed(rig, "live:1", pid=42)
    with pytest.raises(NotYourPeerError):
        await rig.broker.peers.add_keys(ann[1], peer_id, ("resume:1",))
    assert rig.broker.roster.get(ann[0]).presence is Presence.PRESENT


async def test_mail_for_a_name_waits_for_who_is_away_and_not_for_who_once_had_it(rig):
    first = (await rig.join(name="worker", cwd="/a")).peer.id
    await rig.broker.peers.rename(USER, first, "planner")
    second = await rig.join(name="worker", cwd="/b", keys=("resume:1",), proof="the right answer")
    caller = Caller(token_hash=hash_token(second.token))
    await rig.broker.peers.unregister(caller, second.peer.id)
    assert (await rig.send("worker")).message.to_id == second.peer.id


async def test_the_name_of_who_may_come_back_is_taken(rig):
    joined = await rig.join(name="me", keys=("shell:1",), proof="the right answer")
    await rig.broker.peers.unregister(Caller(token_hash=hash_token(joined.token)), joined.peer.id)
    other = (await rig.join(name="other")).peer.id
    with pytest.raises(NameTakenError):
        await rig.broker.peers.rename(USER, other, "me")


async def test_the_id_of_a_peer_that_was_replaced_forwards_for_a_day(rig):
    rig.machine.start(41)
    old = (await rig.join(pid=41, name="ann")).peer.id
    new = (await rig.join(pid=41, name="ann")).peer.id
    assert new != old
    assert (await rig.send(old)).message.to_id == new
    rig.clock.passed += FORWARD
    with pytest.raises(PeerNotFoundError):
        await rig.send(old)
