"""What becomes of mail that was handed out: seen with the next poll, acknowledged, or returned."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import broker as broker_module
from claude_peers.broker.leases import ACK_WITHIN, Leases
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import Event
from claude_peers.core.errors import NotYourPeerError, StoreError
from claude_peers.core.models import PeerId
from claude_peers.wire.records import PollRequest

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")


@pytest.fixture
async def rig(monkeypatch):
    monkeypatch.setattr(broker_module, "DYING", 3600.0)
    return await make_broker()


@pytest.fixture
async def bob(rig) -> PeerId:
    return (await rig.join(name="bob")).peer.id


async def sent(rig, to_id: str, count: int = 1) -> list[int]:
    return [(await rig.send(to_id)).message.id for _ in range(count)]


async def settle(rig, owner: str, ids: list[int], event: Event) -> list[int]:
    return await rig.broker.mail.settle(Caller(), owner, tuple(ids), event)


# Polls that consume


async def test_a_poll_that_was_written_whole_is_settled_by_the_next(rig, bob):
    numbers = await sent(rig, bob, 2)
    assert await rig.poll(bob) == numbers
    assert await rig.states(*numbers) == ["leased"] * 2
    assert await rig.poll(bob) == []
    assert await rig.states(*numbers) == ["seen"] * 2


async def test_a_poll_that_was_not_written_is_given_back(rig, bob):
    numbers = await sent(rig, bob, 2)
    await rig.poll(bob, whole=False)
    assert await rig.states(*numbers) == ["queued"] * 2
    assert await rig.poll(bob) == numbers


async def test_a_poll_whose_answer_is_still_being_written_is_not_settled(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob, whole=None)
    assert await rig.poll(bob) == []
    assert await rig.states(*numbers) == ["leased"]


async def test_a_heartbeat_settles_nothing(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob)
    await rig.broker.peers.heartbeat(Caller(), bob)
    assert await rig.states(*numbers) == ["leased"]


async def test_a_poll_of_a_peer_settles_nothing_of_another(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob)
    await rig.poll((await rig.join()).peer.id)
    assert await rig.states(*numbers) == ["leased"]


async def test_a_new_leader_hands_out_again_what_was_not_settled(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob)
    after = await make_broker(rig.store)
    assert await after.poll(bob) == numbers
    assert (await rig.store.message(numbers[0])).deliveries == 2


async def test_a_poll_of_nobody_is_empty(rig):
    assert await rig.poll("nobody") == []


async def test_a_poll_can_be_limited_and_leave_out_what_is_in_hand(rig, bob):
    numbers = await sent(rig, bob, 4)
    assert await rig.poll(bob, limit=2, exclude=(numbers[0],)) == numbers[1:3]


async def test_nobody_polls_for_another_process(rig):
    peer_id, _ = await rig.joins_as_process(41)
    numbers = await sent(rig, peer_id)
    with pytest.raises(NotYourPeerError):
        await rig.poll(peer_id)
    assert await rig.states(*numbers) == ["queued"]


async def test_a_poll_that_the_store_refuses_leaves_the_one_before_to_the_next(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob)
    rig.store.broken.add("hand_out")
    with pytest.raises(StoreError):
        await rig.poll(bob)
    rig.store.broken.clear()
    assert await rig.states(*numbers) == ["leased"]
    await rig.poll(bob)
    assert await rig.states(*numbers) == ["seen"]


# Polls that are acknowledged


async def test_an_acknowledged_poll_is_settled_by_its_acknowledgement_only(rig, bob):
    numbers = await sent(rig, bob, 2)
    assert await rig.poll(bob, ack_supported=True) == numbers
    assert await rig.poll(bob, ack_supported=True) == []
    assert await rig.poll(bob) == []
    assert await rig.states(*numbers) == ["leased"] * 2
    assert await settle(rig, bob, numbers[:1], Event.SEE) == numbers[:1]
    assert await rig.states(*numbers) == ["seen", "leased"]


async def test_what_is_not_acknowledged_in_time_is_given_back(rig, bob):
    seen, lost = await sent(rig, bob, 2)
    await rig.poll(bob, ack_supported=True)
    await settle(rig, bob, [seen], Event.SEE)
    rig.clock.passed = ACK_WITHIN - 1
    await rig.broker.tidy()
    await rig.settled()
    assert await rig.states(seen, lost) == ["seen", "leased"]
    rig.clock.passed = ACK_WITHIN
    await rig.broker.tidy()
    await rig.settled()
    assert await rig.states(seen, lost) == ["seen", "queued"]


async def test_an_acknowledgement_that_comes_late_still_counts(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob, ack_supported=True)
    rig.clock.passed = ACK_WITHIN
    await rig.broker.tidy()
    await rig.settled()
    assert await settle(rig, bob, numbers, Event.SEE) == numbers


async def test_released_messages_are_handed_out_again(rig, bob):
    kept, released = await sent(rig, bob, 2)
    await rig.poll(bob, ack_supported=True)
    assert await settle(rig, bob, [released], Event.RETURN) == [released]
    assert await rig.poll(bob, ack_supported=True) == [released]
    assert await rig.states(kept) == ["leased"]


async def test_a_legacy_poll_has_no_deadline(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob)
    rig.clock.passed = ACK_WITHIN * 10
    await rig.broker.tidy()
    await rig.settled()
    assert await rig.states(*numbers) == ["leased"]


async def test_an_acknowledgement_that_is_not_stored_leaves_the_lease(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob, ack_supported=True)
    rig.store.broken.add("move")
    with pytest.raises(StoreError):
        await settle(rig, bob, numbers, Event.SEE)
    rig.store.broken.clear()
    rig.broker.connection_ended(bob)
    await rig.settled()
    assert await rig.states(*numbers) == ["queued"]


async def test_a_pushed_mark_leaves_the_lease(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob, ack_supported=True)
    assert await settle(rig, bob, numbers, Event.PUSH) == []
    rig.broker.connection_ended(bob)
    await rig.settled()
    assert await rig.states(*numbers) == ["queued"]


async def test_a_pushed_message_can_still_be_polled(rig, bob):
    numbers = await sent(rig, bob)
    assert await settle(rig, bob, numbers, Event.PUSH) == numbers
    assert await rig.poll(bob, ack_supported=True) == numbers


# Connections and processes that end


@pytest.mark.parametrize("ack_supported", [True, False])
async def test_what_a_connection_had_in_hand_is_given_back_when_it_ends(rig, bob, ack_supported):
    numbers = await sent(rig, bob, 2)
    await rig.poll(bob, ack_supported=ack_supported)
    rig.broker.connection_ended(bob)
    await rig.settled()
    assert await rig.states(*numbers) == ["queued"] * 2


async def test_what_a_dead_process_had_in_hand_is_given_back(rig):
    peer_id, caller = await rig.joins_as_process(41)
    numbers = await sent(rig, peer_id)
    await rig.poll(peer_id, caller)
    rig.machine.end(41)
    await rig.broker.peers.sweep()
    await rig.settled()
    assert await rig.states(*numbers) == ["queued"]


async def test_what_a_peer_had_in_hand_when_it_left_waits_for_its_successor(rig):
    ours = {"proof": "the right answer", "keys": ("live:1",)}
    joined = await rig.join(**ours)
    bearer = Caller(token_hash=hash_token(joined.token))
    numbers = await sent(rig, joined.peer.id)
    await rig.poll(joined.peer.id, bearer)
    await rig.broker.peers.unregister(bearer, joined.peer.id)
    await rig.settled()
    after = await rig.join(**ours)
    assert await rig.poll(after.peer.id, Caller(token_hash=hash_token(after.token))) == numbers


async def test_what_a_peer_without_a_successor_had_in_hand_is_settled_under_its_old_id(rig, bob):
    numbers = await sent(rig, bob)
    await rig.poll(bob)
    await rig.broker.peers.unregister(Caller(), bob)
    assert await rig.poll(bob) == []
    assert await rig.states(*numbers) == ["seen"]


async def test_what_is_in_other_hands_by_now_is_not_given_back_twice(rig, bob):
    numbers = await sent(rig, bob)
    request = {"ack_supported": True}
    broker = rig.broker
    _, first = await broker.mail.poll(Caller(), PollRequest(id=bob, **request))
    rig.clock.passed = ACK_WITHIN
    await broker.tidy()
    await rig.settled()
    assert await rig.poll(bob, **request) == numbers
    broker.mail.handed_over(first, whole=False)
    await rig.settled()
    assert await rig.states(*numbers) == ["leased"]


async def test_a_return_that_is_not_stored_is_tried_again(rig, bob, caplog):
    numbers = await sent(rig, bob)
    _, handout = await rig.broker.mail.poll(Caller(), PollRequest(id=bob))
    rig.store.broken.add("move")
    rig.broker.mail.handed_over(handout, whole=False)
    await rig.settled()
    assert "background work failed" in caplog.text
    assert await rig.states(*numbers) == ["leased"]
    rig.store.broken.clear()
    await rig.broker.tidy()
    await rig.settled()
    assert await rig.states(*numbers) == ["queued"]


# Looking, and whose messages these are


async def test_looking_changes_nothing(rig, bob):
    numbers = await sent(rig, bob, 2)
    looked = await rig.broker.mail.peek(Caller(), bob)
    assert [message.id for message in looked] == numbers
    assert await rig.states(*numbers) == ["queued"] * 2
    assert [message.deliveries for message in await rig.broker.mail.peek(Caller(), bob)] == [0, 0]


async def test_nobody_looks_into_or_settles_the_mail_of_another_process(rig):
    peer_id, _ = await rig.joins_as_process(41)
    numbers = await sent(rig, peer_id)
    with pytest.raises(NotYourPeerError):
        await rig.broker.mail.peek(Caller(), peer_id)
    with pytest.raises(NotYourPeerError):
        await settle(rig, peer_id, numbers, Event.SEE)
    assert await rig.states(*numbers) == ["queued"]


async def test_the_owners_of_messages_are_found(rig, bob):
    cid = (await rig.join()).peer.id
    one, two, three = [*await sent(rig, bob, 2), *await sent(rig, cid)]
    found = await rig.broker.fates.owners(Caller(), (three, one, 99, two))
    assert found == {cid: (three,), bob: (one, two)}


async def test_what_a_stream_cannot_give_back_yet_is_shown_by_a_look(rig, bob):
    numbers = await sent(rig, bob, 2)
    hand = rig.broker.streams.open(Caller(), bob, via="test", ack_within=60.0)
    await hand.take()
    rig.store.broken.add("move")
    hand.end()
    await rig.settled()
    assert await rig.states(*numbers) == ["leased"] * 2
    assert [message.id for message in await rig.broker.mail.peek(Caller(), bob)] == numbers
    rig.store.broken.clear()
    await rig.broker.tidy()
    await rig.settled()
    assert await rig.states(*numbers) == ["queued"] * 2
    assert [message.id for message in await rig.broker.mail.peek(Caller(), bob)] == numbers


# The book of hand-outs itself


def test_a_hand_out_of_nothing_is_not_remembered():
    leases = Leases()
    leases.begin(BOB, [], deadline=0.0)
    assert leases.overdue(now=1.0) == []


def test_acknowledging_every_message_ends_a_hand_out():
    leases = Leases()
    first = leases.begin(BOB, [1, 2], deadline=0.0)
    second = leases.begin(BOB, [3], deadline=0.0)
    leases.acknowledge(BOB, (1, 3))
    assert leases.overdue(now=1.0) == [first]
    leases.acknowledge(BOB, (2,))
    assert leases.overdue(now=1.0) == []
    assert leases.drop(second) == ()


def test_everything_a_peer_has_in_hand_is_told_once_and_in_order():
    leases = Leases()
    leases.begin(BOB, [3])
    leases.begin(BOB, [1, 2], deadline=9.0)
    assert leases.drop_all(BOB) == (1, 2, 3)
    assert leases.drop_all(BOB) == ()
    assert leases.arrived(BOB) == ()
