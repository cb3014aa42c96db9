"""Sending: who is meant, who is speaking, how much, and what the recipient's connection gets."""

import asyncio

import pytest
from support.brokers import Caller, Clock, make_broker

from claude_peers.broker.rates import Rates
from claude_peers.broker.registration import hash_token
from claude_peers.core import limits as core_limits
from claude_peers.core.delivery import DIRECT_TTL
from claude_peers.core.errors import (
    DedupeConflictError,
    MailboxFullError,
    NotYourPeerError,
    PeerNotFoundError,
    RateLimitedError,
    StoreError,
    TextTooLongError,
)
from claude_peers.core.limits import TEXT, Limits
from claude_peers.core.models import Presence
from claude_peers.wire.records import SendMessageRequest

pytestmark = pytest.mark.anyio

OURS = {"proof": "the right answer"}


@pytest.fixture
async def rig():
    return await make_broker()


async def test_a_message_is_stored_and_then_offered_to_its_recipient(rig):
    peer = (await rig.join(name="main")).peer
    receipt = await rig.send(peer.id, "hello", reply_to=7)
    message = receipt.message
    assert (message.text, message.to_id, message.from_id) == ("hello", peer.id, "cli")
    assert (message.sent_at, message.reply_to) == ("2023-11-14T22:13:20.000Z", 7)
    assert rig.transport.delivered == [message]
    assert await rig.unread(peer.id) == [message.id]


@pytest.mark.parametrize("target", ["main", "main@here", "/r/src"])
async def test_a_recipient_can_be_named(rig, target):
    peer = (await rig.join(name="main", cwd="/r/src")).peer
    assert (await rig.send(target)).message.to_id == peer.id


async def test_a_message_for_nobody_is_refused(rig):
    with pytest.raises(PeerNotFoundError):
        await rig.send("nobody")
    assert (await rig.store.ledger()).accepted == 0


@pytest.mark.bug("U12")
async def test_messages_are_offered_in_the_order_of_acceptance(rig):
    peer_id = (await rig.join()).peer.id
    await asyncio.gather(*(rig.send(peer_id, str(n)) for n in range(20)))
    assert [message.text for message in rig.transport.delivered] == [str(n) for n in range(20)]
    numbers = [message.id for message in rig.transport.delivered]
    assert numbers == sorted(numbers)


async def test_a_message_is_over_after_its_time(rig):
    peer_id = (await rig.join()).peer.id
    number = (await rig.send(peer_id)).message.id
    rig.clock.passed = DIRECT_TTL - 1
    await rig.broker.tidy()
    assert await rig.states(number) == ["queued"]
    rig.clock.passed = DIRECT_TTL
    await rig.broker.tidy()
    assert await rig.states(number) == ["dead"]


async def test_tidying_goes_on_until_nothing_is_overdue(rig, monkeypatch):
    monkeypatch.setattr("claude_peers.broker.broker.SLICE", 2)
    peer_id = (await rig.join()).peer.id
    numbers = [(await rig.send(peer_id)).message.id for _ in range(5)]
    rig.clock.passed = DIRECT_TTL
    await rig.broker.tidy()
    assert await rig.states(*numbers) == ["dead"] * 5


# Again


async def test_a_message_that_is_sent_again_is_not_offered_again(rig):
    peer_id = (await rig.join()).peer.id
    first = await rig.send(peer_id, dedupe_key="k")
    again = await rig.send(peer_id, dedupe_key="k")
    assert (again.duplicate, again.message.id) == (True, first.message.id)
    assert len(rig.transport.delivered) == 1


async def test_a_key_used_for_another_message_is_refused(rig):
    peer_id = (await rig.join()).peer.id
    await rig.send(peer_id, "one", dedupe_key="k")
    with pytest.raises(DedupeConflictError):
        await rig.send(peer_id, "two", dedupe_key="k")


async def test_a_new_leader_knows_what_was_sent_to_the_old_one(rig):
    peer_id = (await rig.join()).peer.id
    first = await rig.send(peer_id, dedupe_key="k")
    after = await make_broker(rig.store)
    assert (await after.send(peer_id, dedupe_key="k")).message.id == first.message.id


async def test_a_sender_is_told_that_the_recipient_has_died_unnoticed(rig):
    peer_id, _ = await rig.joins_as_process(41)
    rig.machine.end(41)
    request = SendMessageRequest(to_id=peer_id, text="hi", from_id="cli")
    recipient = (await rig.broker.mail.send(Caller(), request)).recipient
    assert recipient.presence is Presence.DEPARTED
    assert await rig.unread(peer_id)


# Who speaks


async def test_a_process_speaks_for_itself(rig):
    to_id = (await rig.join()).peer.id
    peer_id, caller = await rig.joins_as_process(41)
    assert (await rig.send(to_id, caller=caller, from_id=peer_id)).message.verified


async def test_a_bearer_of_the_token_speaks_for_its_peer(rig):
    joined = await rig.join(**OURS)
    bearer = Caller(token_hash=hash_token(joined.token))
    receipt = await rig.send(joined.peer.id, caller=bearer, from_id=joined.peer.id)
    assert receipt.message.verified


@pytest.mark.parametrize("from_id", ["cli", "open"])
async def test_whoever_proves_nothing_is_not_verified(rig, from_id):
    peer_id = (await rig.join()).peer.id
    receipt = await rig.send(peer_id, from_id=peer_id if from_id == "open" else from_id)
    assert not receipt.message.verified


async def test_nobody_speaks_for_another_process(rig):
    peer_id, _ = await rig.joins_as_process(41)
    with pytest.raises(NotYourPeerError):
        await rig.send(peer_id, from_id=peer_id)
    assert (await rig.store.ledger()).accepted == 0


async def test_where_tokens_are_required_nobody_sends_without_one():
    rig = await make_broker(require_token=True)
    peer_id = (await rig.join()).peer.id
    with pytest.raises(NotYourPeerError):
        await rig.send(peer_id)
    assert not (await rig.send(peer_id, caller=Caller(knows_secret=True))).message.verified


# An answer is evidence, a message back is none


async def test_an_answer_ends_the_message_it_answers(rig):
    ann, bob = (await rig.join()).peer.id, (await rig.join()).peer.id
    number = (await rig.send(bob, from_id=ann)).message.id
    await rig.send(ann, from_id=bob)
    assert await rig.states(number) == ["queued"]
    await rig.send(ann, from_id=bob, reply_to=number)
    assert await rig.states(number) == ["answered"]


# How much


async def test_a_text_over_the_limit_is_refused(rig):
    peer_id = (await rig.join()).peer.id
    await rig.send(peer_id, "x" * TEXT)
    with pytest.raises(TextTooLongError):
        await rig.send(peer_id, "x" * (TEXT + 1))
    assert (await rig.store.ledger()).accepted == 1


async def test_a_full_mailbox_refuses_and_nobody_is_offered_anything():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=1))
    peer_id = (await rig.join()).peer.id
    await rig.send(peer_id)
    with pytest.raises(MailboxFullError):
        await rig.send(peer_id)
    assert len(rig.transport.delivered) == 1


async def test_a_source_may_send_so_much_whatever_name_it_gives_itself():
    rig = await make_broker(limits=Limits(per_minute=60, burst=2))
    peer_id = (await rig.join()).peer.id
    await rig.send(peer_id, from_id="one")
    await rig.send(peer_id, from_id="two")
    with pytest.raises(RateLimitedError) as caught:
        await rig.send(peer_id, from_id="three")
    assert caught.value.retry_after == 1.0
    await rig.send(peer_id, caller=Caller(source="another"))
    rig.clock.passed = 1.0
    await rig.send(peer_id, from_id="three")


async def test_a_peer_that_is_known_is_counted_by_itself():
    rig = await make_broker(limits=Limits(per_minute=60, burst=1))
    ann, ann_caller = await rig.joins_as_process(41)
    bob, bob_caller = await rig.joins_as_process(42)
    await rig.send(bob, caller=ann_caller, from_id=ann)
    await rig.send(ann, caller=bob_caller, from_id=bob)
    with pytest.raises(RateLimitedError):
        await rig.send(bob, caller=ann_caller, from_id=ann)


async def test_a_limit_of_zero_lets_everything_through(rig):
    peer_id = (await rig.join()).peer.id
    for _ in range(200):
        await rig.send(peer_id)


@pytest.mark.fault("F26")
def test_only_so_many_sources_are_remembered_and_who_floods_is_not_forgotten(monkeypatch):
    monkeypatch.setattr("claude_peers.broker.rates.SENDERS", 3)
    rates, clock = Rates(Limits(per_minute=60, burst=1)), Clock()
    rates.spend("flood", now=clock.monotonic())
    for n in range(10):
        rates.spend(f"other {n}", now=clock.monotonic())
        with pytest.raises(RateLimitedError):
            rates.spend("flood", now=clock.monotonic())
        assert len(rates) <= 3


def test_nobody_is_remembered_where_there_is_no_limit():
    rates = Rates(Limits(per_minute=0))
    rates.spend("somebody", now=0.0)
    assert len(rates) == 0
    assert core_limits.SENDERS > 1000


async def test_a_ledger_that_does_not_balance_is_an_error_in_the_log(rig, caplog, monkeypatch):
    await rig.broker.tidy()
    assert not caplog.records
    with monkeypatch.context() as wrong:
        wrong.setattr(type(await rig.store.ledger()), "balanced", False)
        await rig.broker.tidy()
    assert "messages are not accounted for" in caplog.text


async def test_a_stored_message_is_ok_although_the_look_at_its_recipient_failed(
    rig, caplog, monkeypatch
):
    peer_id = (await rig.join()).peer.id

    async def fails(_peers):
        raise StoreError("The disk is full", "Free some space.", retry_after=1.0)

    monkeypatch.setattr(rig.broker.peers, "sweep", fails)
    receipt = await rig.send(peer_id, "kept")
    assert receipt.message.text == "kept"
    assert "could not be noted: The disk is full" in caplog.text
