"""A second server of one agent: it shares the first one's peer, and ends nothing."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import roster
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import Event
from claude_peers.core.errors import NotYourPeerError
from claude_peers.core.models import Presence
from claude_peers.wire.records import ListPeersRequest

pytestmark = pytest.mark.anyio

LIVE = {"proof": "the right answer", "keys": ("live:1", "resume:1")}


@pytest.fixture
async def rig():
    return await make_broker()


async def enter(rig, pid: int, **fields):
    """Register a process of the agent; return what it learns and it as a caller."""
    caller = Caller(processes=(rig.machine.start(pid),))
    joined = await rig.join(caller, pid=pid, **{**LIVE, **fields})
    return joined, Caller(token_hash=hash_token(joined.token))


async def present(rig) -> list[str]:
    return [peer.id for peer in await rig.broker.peers.list_peers(ListPeersRequest())]


async def test_a_second_server_of_a_running_agent_shares_its_peer(rig):
    first, _ = await enter(rig, 41, name="main", route="rewake")
    second, _ = await enter(rig, 42, name="other", route="hook", summary="s")
    assert (first.secondary, second.secondary) == (False, True)
    assert second.peer.id == first.peer.id
    assert second.token != first.token
    assert rig.broker.roster.get(first.peer.id) == first.peer
    assert await present(rig) == [first.peer.id]


async def test_the_first_server_keeps_its_token(rig):
    first, bearer = await enter(rig, 41)
    await enter(rig, 42)
    await rig.broker.peers.set_summary(bearer, first.peer.id, "mine")
    again = await rig.join(token=first.token, pid=41, **LIVE)
    assert (again.peer.id, again.token, again.secondary) == (first.peer.id, first.token, False)


async def test_a_second_server_sends_reads_and_speaks_for_its_agent(rig):
    first, _ = await enter(rig, 41)
    _, second = await enter(rig, 42)
    to_id, _ = await rig.joins_as_process(43)
    sent = await rig.send(to_id, caller=second, from_id=first.peer.id)
    assert sent.message.verified
    assert (await rig.broker.fates.story(second, sent.message.id)).message.id == sent.message.id
    number = (await rig.send(first.peer.id)).message.id
    assert [m.id for m in await rig.broker.mail.peek(second, first.peer.id)] == [number]
    assert (await rig.broker.peers.rename(second, first.peer.id, "main")).name == "main"
    with pytest.raises(NotYourPeerError):
        await rig.send(first.peer.id, caller=second, from_id=to_id)


async def test_a_second_server_that_leaves_leaves_the_peer(rig):
    first, bearer = await enter(rig, 41)
    _, second = await enter(rig, 42)
    await rig.broker.peers.unregister(second, first.peer.id)
    assert await present(rig) == [first.peer.id]
    assert rig.transport.dismissed == []
    with pytest.raises(NotYourPeerError):
        await rig.broker.peers.set_summary(second, first.peer.id, "not any more")
    await rig.broker.peers.set_summary(bearer, first.peer.id, "still mine")


async def test_a_sub_agents_short_life_harms_nothing(rig):
    first, bearer = await enter(rig, 41)
    number = (await rig.send(first.peer.id)).message.id
    assert await rig.poll(first.peer.id, bearer, ack_supported=True) == [number]
    for pid in range(50, 60):
        rig.clock.passed += 0.062
        joined, _ = await enter(rig, pid)
        assert joined.secondary
        rig.machine.end(pid)
        await rig.broker.peers.sweep()
    await rig.settled()
    assert await rig.states(number) == ["leased"]
    assert await present(rig) == [first.peer.id]
    assert rig.broker.roster.get(first.peer.id).process == rig.machine.identify(41)


async def test_the_first_is_told_what_a_second_server_has_read(rig):
    first, _ = await enter(rig, 41)
    _, second = await enter(rig, 42)
    peer_id = first.peer.id
    numbers = [(await rig.send(peer_id)).message.id for _ in range(2)]
    await rig.broker.mail.settle(second, peer_id, (*numbers, 99), Event.SEE)
    await rig.broker.mail.settle(second, peer_id, tuple(numbers), Event.SEE)
    assert rig.transport.read == [(peer_id, numbers)]


async def test_the_first_is_told_what_a_second_server_answers(rig):
    first, _ = await enter(rig, 41)
    _, second = await enter(rig, 42)
    other, caller = await rig.joins_as_process(43)
    number = (await rig.send(first.peer.id, caller=caller, from_id=other)).message.id
    await rig.send(other, caller=second, from_id=first.peer.id, reply_to=number)
    assert rig.transport.read == [(first.peer.id, [number])]


@pytest.mark.parametrize("event", [Event.PUSH, Event.RETURN])
async def test_the_first_is_not_told_what_was_not_read(rig, event):
    first, _ = await enter(rig, 41)
    _, second = await enter(rig, 42)
    number = (await rig.send(first.peer.id)).message.id
    if event is Event.RETURN:
        await rig.poll(first.peer.id, second, ack_supported=True)
    assert await rig.broker.mail.settle(second, first.peer.id, (number,), event) == [number]
    assert rig.transport.read == []


async def test_what_the_first_has_read_itself_costs_no_frame(rig):
    first, bearer = await enter(rig, 41)
    await enter(rig, 42)
    number = (await rig.send(first.peer.id)).message.id
    await rig.broker.mail.settle(bearer, first.peer.id, (number,), Event.SEE)
    other, _ = await rig.joins_as_process(43)
    await rig.send(other, caller=bearer, from_id=first.peer.id, reply_to=number)
    assert rig.transport.read == []


async def test_only_the_newest_of_a_peers_second_servers_speak_for_it(rig, monkeypatch):
    monkeypatch.setattr(roster, "BESIDE", 3)
    first, _ = await enter(rig, 41)
    apart, _ = await enter(rig, 40, keys=("live:2",))
    _, of_another = await enter(rig, 39, keys=("live:2",))
    seconds = [(await enter(rig, pid))[1] for pid in range(50, 54)]
    known = rig.broker.roster
    speak = [known.attached(each.token_hash, first.peer.id) for each in seconds]
    assert speak == [False, True, True, True]
    assert known.attached(of_another.token_hash, apart.peer.id)
    assert len(known._attached) == 4


async def test_second_servers_of_a_forgotten_peer_are_forgotten(rig):
    first, bearer = await enter(rig, 41)
    await enter(rig, 42)
    await rig.broker.peers.unregister(bearer, first.peer.id)
    await rig.broker.roster.forget(gone_since="9")
    assert rig.broker.roster._attached == {}


async def test_second_servers_are_dismissed_when_the_first_dies_and_the_next_adopts(rig):
    first, _ = await enter(rig, 41, name="main")
    await enter(rig, 42)
    number = (await rig.send(first.peer.id)).message.id
    rig.machine.end(41)
    await rig.broker.peers.sweep()
    assert rig.transport.dismissed == [first.peer.id]
    assert rig.broker.roster.get(first.peer.id).presence is Presence.AWAY
    heir, bearer = await enter(rig, 42)
    assert (heir.secondary, heir.peer.id, heir.peer.name) == (False, first.peer.id, "main")
    assert await rig.poll(heir.peer.id, bearer) == [number]


async def test_second_servers_are_dismissed_when_the_first_leaves(rig):
    first, bearer = await enter(rig, 41)
    await enter(rig, 42)
    await rig.broker.peers.unregister(bearer, first.peer.id)
    assert rig.transport.dismissed == [first.peer.id]


async def test_a_first_server_that_died_unnoticed_is_adopted_at_once(rig):
    first, _ = await enter(rig, 41)
    rig.machine.end(41)
    heir, _ = await enter(rig, 42)
    assert (heir.secondary, heir.peer.id) == (False, first.peer.id)


async def test_a_second_server_is_one_again_with_the_next_broker(rig):
    first, _ = await enter(rig, 41)
    second, _ = await enter(rig, 42)
    after = await make_broker(rig.store)
    after.machine.running = rig.machine.running
    again = await after.join(pid=42, token=second.token, **LIVE)
    assert (again.secondary, again.peer.id) == (True, first.peer.id)
    back = await after.join(pid=41, token=first.token, **LIVE)
    assert (back.secondary, back.token) == (False, first.token)


async def test_a_process_that_lost_its_answer_is_itself_again(rig):
    first, _ = await enter(rig, 41)
    again, bearer = await enter(rig, 41)
    assert (again.secondary, again.peer.id) == (False, first.peer.id)
    await rig.broker.peers.set_summary(bearer, first.peer.id, "mine")


async def test_where_no_process_can_be_seen_a_second_server_does_not_take_the_peer(rig):
    first = await rig.join(**LIVE)
    second = await rig.join(**LIVE)
    assert (second.secondary, second.peer.id) == (True, first.peer.id)
    bearer = Caller(token_hash=hash_token(first.token))
    await rig.broker.peers.set_summary(bearer, first.peer.id, "still mine")


@pytest.mark.parametrize(
    "fields",
    [{"proof": "wrong"}, {"keys": ("live:2",)}, {"keys": ("resume:1",)}, {"keys": ()}],
    ids=["no secret", "another agent", "another process of one session", "no key"],
)
async def test_nobody_else_shares_a_peer(rig, fields):
    first, _ = await enter(rig, 41)
    other, _ = await enter(rig, 42, **fields)
    assert not other.secondary
    assert other.peer.id != first.peer.id
    assert rig.broker.roster.get(first.peer.id).presence is Presence.PRESENT


async def test_letting_go_of_no_token_is_nothing(rig):
    assert not rig.broker.roster.release(None)
    assert not rig.broker.roster.release("f00")
    assert not rig.broker.roster.attached(None, "x")
