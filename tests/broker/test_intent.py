"""Requests, and how their senders learn, once, that no answer came."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import notices as notices_module
from claude_peers.broker import registration
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import DIRECT_TTL, MOST_TTL, OWED, Event
from claude_peers.core.errors import StoreError
from claude_peers.core.limits import Limits
from claude_peers.core.liveness import SILENCE
from claude_peers.core.models import SYSTEM, PeerId, Presence
from claude_peers.stores.retention import KEEP_READ
from claude_peers.stores.sqlite.store import SqliteStore
from claude_peers.wire.records import ListPeersRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rig():
    return await make_broker()


@pytest.fixture
async def ann(rig):
    return await rig.joins_as_process(41, name="ann")


@pytest.fixture
async def bob(rig):
    return await rig.joins_as_process(42, name="bob")


async def ask(rig, ann, bob, **fields) -> int:
    fields = {"intent": "request", **fields}
    return (await rig.send(bob[0], "what?", ann[1], from_id=ann[0], **fields)).message.id


async def later(rig, seconds: float) -> None:
    rig.clock.passed += seconds
    rig.transport.linked.update(peer.id for peer in rig.broker.roster.present())
    await rig.broker.tidy()
    await rig.settled()


async def notices(rig, ann) -> list[str]:
    found = [each for each in await rig.store.history(limit=500) if each.from_id == SYSTEM]
    assert {(m.to_id, m.verified, m.intent) for m in found} <= {(ann[0], True, "inform")}
    return [message.text for message in found]


async def test_who_asks_is_told_once_that_no_answer_came(rig, ann, bob):
    number = await ask(rig, ann, bob)
    await later(rig, OWED - 1)
    assert await notices(rig, ann) == []
    await later(rig, 1)
    await later(rig, 1)
    (text,) = await notices(rig, ann)
    assert text == (
        f"bob has not answered your message {number}. It stays in that mailbox; "
        f"message_status {number} tells more. This is said once."
    )
    assert rig.transport.delivered[-1].from_id == SYSTEM
    assert await rig.states(number) == ["queued"]


async def test_who_is_answered_in_time_is_told_nothing(rig, ann, bob):
    number = await ask(rig, ann, bob)
    await rig.send(ann[0], "that", bob[1], from_id=bob[0], reply_to=number)
    await later(rig, OWED)
    rig.machine.end(42)
    rig.transport.linked.clear()
    await rig.broker.peers.sweep()
    await rig.settled()
    assert await notices(rig, ann) == []


async def test_a_message_back_is_no_answer(rig, ann, bob):
    await ask(rig, ann, bob)
    await rig.send(ann[0], "by the way", bob[1], from_id=bob[0])
    await later(rig, OWED)
    assert len(await notices(rig, ann)) == 1


async def test_what_was_read_and_not_answered_is_told_so(rig, ann, bob):
    number = await ask(rig, ann, bob)
    await rig.broker.mail.settle(bob[1], bob[0], (number,), Event.SEE)
    await later(rig, OWED)
    (text,) = await notices(rig, ann)
    assert "It was read" in text and "stays" not in text


@pytest.mark.parametrize("intent", ["", "inform", "ack", "anything"])
async def test_whoever_does_not_ask_is_told_nothing(rig, ann, bob, intent):
    await ask(rig, ann, bob, intent=intent)
    await later(rig, OWED)
    assert await notices(rig, ann) == []


async def test_nobody_is_told_who_is_not_known(rig, bob):
    await rig.send(bob[0], from_id="cli", intent="request")
    await later(rig, OWED)
    assert (await rig.store.ledger()).accepted == 1


@pytest.mark.parametrize(
    ("wanted", "ttl", "told_after"),
    [
        (5_000, None, 5.0),
        (0, None, OWED),
        (-5_000, None, OWED),
        (2 * 10**9, None, DIRECT_TTL),
        (None, 3_000, 3.0),
        (2 * 10**9, 2 * 10**9, MOST_TTL),
    ],
)
async def test_a_sender_may_say_how_long_it_waits(rig, ann, bob, wanted, ttl, told_after):
    number = await ask(rig, ann, bob, answer_within_ms=wanted, ttl_ms=ttl)
    await later(rig, told_after - 0.5)
    assert await notices(rig, ann) == []
    await later(rig, 0.5)
    assert len(await notices(rig, ann)) == 1
    over = told_after != OWED and (ttl is not None or told_after == DIRECT_TTL)
    assert await rig.states(number) == ["dead" if over else "queued"]


async def test_who_waits_longer_than_read_mail_is_kept_is_told_nevertheless(rig, ann, bob):
    days = 3 * 24 * 3600
    number = await ask(rig, ann, bob, answer_within_ms=days * 1000, ttl_ms=days * 1000)
    await rig.broker.mail.settle(bob[1], bob[0], (number,), Event.SEE)
    await later(rig, KEEP_READ + 1)
    assert await notices(rig, ann) == []
    await later(rig, days)
    assert len(await notices(rig, ann)) == 1


async def test_many_requests_are_all_told_of(rig, ann, bob, monkeypatch):
    monkeypatch.setattr(notices_module, "NOTICES", 2)
    numbers = [await ask(rig, ann, bob) for _ in range(5)]
    await later(rig, OWED)
    told = await notices(rig, ann)
    assert [f"message {number}." in text for number, text in zip(numbers, told, strict=True)]
    assert len(told) == 5


async def test_who_asks_is_told_at_once_that_the_other_has_ended(rig, ann, bob, monkeypatch):
    monkeypatch.setattr(notices_module, "NOTICES", 2)
    for _ in range(3):
        await ask(rig, ann, bob)
    rig.machine.end(42)
    await rig.broker.peers.sweep()
    await rig.settled()
    assert [text[:30] for text in await notices(rig, ann)] == ["bob ended before it answered y"] * 3
    await later(rig, OWED)
    assert len(await notices(rig, ann)) == 3


async def test_who_asks_somebody_long_silent_is_told_of_its_end(rig, ann, bob):
    rig.clock.passed += 5
    await ask(rig, ann, bob)
    rig.clock.passed += 5
    rig.machine.end(42)
    await rig.broker.peers.sweep()
    await rig.settled()
    assert len(await notices(rig, ann)) == 1


async def test_who_asks_somebody_long_silent_is_told_that_it_left(rig, ann, bob):
    rig.clock.passed += 5
    await ask(rig, ann, bob)
    rig.clock.passed += 5
    await rig.broker.peers.unregister(bob[1], bob[0])
    await rig.settled()
    assert len(await notices(rig, ann)) == 1


async def test_who_asks_is_told_that_the_other_has_left(rig, ann, bob):
    await ask(rig, ann, bob)
    await rig.broker.peers.unregister(bob[1], bob[0])
    await rig.settled()
    assert len(await notices(rig, ann)) == 1


async def test_whoever_was_only_silent_is_not_said_to_have_ended(rig, ann):
    silent = (await rig.join(name="sh")).peer.id
    await ask(rig, ann, (silent, None))
    rig.clock.passed = SILENCE + 1
    await rig.broker.peers.sweep()
    await rig.settled()
    (text,) = await notices(rig, ann)
    assert text.startswith("sh went away before it answered")


async def test_a_recipient_that_is_forgotten_is_named_by_its_id(rig, ann, bob):
    await ask(rig, ann, bob)
    del rig.broker.roster._peers[bob[0]]
    await later(rig, OWED)
    (text,) = await notices(rig, ann)
    assert text.startswith(f"{bob[0]} has not answered")


async def test_a_broker_that_ended_with_a_peer_leaves_the_word_to_the_next_one(rig, ann, bob):
    number = await ask(rig, ann, bob)
    gone = registration.gone(
        rig.broker.roster.get(bob[0]), left=True, at="2023-11-14T22:13:21.000Z"
    )
    await rig.store.save_peer(gone)
    after = await make_broker(rig.store)
    await after.settled()
    (text,) = await notices(after, ann)
    assert text.startswith(f"bob ended before it answered your message {number}.")


async def test_who_asked_somebody_that_was_away_is_not_told_that_it_ended(rig, ann):
    joined = await rig.join(name="bob", keys=("live:1",), proof="the right answer")
    caller = Caller(token_hash=hash_token(joined.token))
    await rig.broker.peers.unregister(caller, joined.peer.id)
    rig.clock.passed += 1
    await ask(rig, ann, (joined.peer.id, None))
    after = await make_broker(rig.store)
    await after.settled()
    assert await notices(after, ann) == []


async def test_two_brokers_on_one_store_tell_once(rig, ann, bob):
    await ask(rig, ann, bob)
    after = await make_broker(rig.store)
    for each in (rig, after):
        each.clock.passed = OWED
    await rig.broker.tidy()
    await after.broker.tidy()
    assert len(await notices(rig, ann)) == 1


async def test_a_broker_after_a_crash_tells_once(tmp_path):
    path = str(tmp_path / "mail.db")
    async with SqliteStore(path) as store:
        rig = await make_broker(store)
        ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
        await ask(rig, ann, bob)
        await ask(rig, ann, bob)
        await rig.broker.notices._tell((await store.owed(by=bob[0], limit=1))[0], "x")
    for _ in range(2):
        async with SqliteStore(path) as store:
            rig = await make_broker(store)
            rig.machine.start(41)
            rig.machine.start(42)
            await later(rig, OWED)
            assert len(await notices(rig, ann)) == 2


async def test_a_full_mailbox_does_not_keep_its_owner_from_being_told(ann, bob):
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=1))
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    await ask(rig, ann, bob)
    await rig.send(ann[0])
    await later(rig, OWED)
    assert len(await notices(rig, ann)) == 1


async def test_a_notice_that_is_not_stored_harms_nobody_else_and_is_given_later(
    rig, ann, bob, monkeypatch, caplog
):
    await ask(rig, ann, bob)

    async def full(*_args, **_named):
        raise StoreError("The database failed: full", "Free some space.")

    with monkeypatch.context() as broken:
        broken.setattr(rig.store, "accept", full)
        rig.machine.end(42)
        (shown,) = await rig.broker.peers.list_peers(ListPeersRequest())
        await rig.settled()
        assert shown.id == ann[0]
        assert rig.broker.roster.get(bob[0]).presence is Presence.DEPARTED
    assert "background work failed" in caplog.text
    assert await notices(rig, ann) == []
    await later(rig, OWED)
    assert len(await notices(rig, ann)) == 1


async def test_a_step_of_the_wall_clock_tells_early_and_once(rig, ann, bob):
    await ask(rig, ann, bob)
    rig.clock.stepped = OWED
    await later(rig, 0)
    rig.clock.stepped = -OWED
    await later(rig, 0)
    await later(rig, 3 * OWED)
    assert len(await notices(rig, ann)) == 1


async def test_intent_and_thread_travel_with_a_message(rig, ann, bob):
    first = await ask(rig, ann, bob)
    sent = await rig.send(ann[0], "ok", bob[1], from_id=bob[0], intent="ack", reply_to=first)
    message = await rig.store.message(sent.message.id)
    assert (message.intent, message.thread, message.hops) == ("ack", first, 1)


async def test_a_second_server_is_told_of_as_its_agent(rig, bob):
    ours = {"proof": "the right answer", "keys": ("live:1",)}
    rig.machine.start(51)
    rig.machine.start(52)
    first = await rig.join(pid=51, **ours)
    second = await rig.join(pid=52, **ours)
    bearer = Caller(token_hash=hash_token(second.token))
    await ask(rig, (first.peer.id, bearer), bob)
    await later(rig, OWED)
    assert len(await notices(rig, (PeerId(first.peer.id), None))) == 1


async def test_an_answer_that_comes_while_the_notice_is_written_saves_it(
    rig, ann, bob, monkeypatch
):
    number = await ask(rig, ann, bob)
    owed = rig.store.owed

    async def answered_meanwhile(**which):
        found = await owed(**which)
        if found:
            await rig.send(ann[0], "that", bob[1], from_id=bob[0], reply_to=number)
        return found

    monkeypatch.setattr(rig.store, "owed", answered_meanwhile)
    await later(rig, OWED)
    assert await notices(rig, ann) == []
    assert await rig.states(number) == ["answered"]
    assert SYSTEM not in {message.from_id for message in rig.transport.delivered}
