"""Subscribing, and the last values that newcomers get."""

import asyncio

import pytest
from support.brokers import LEADER, Caller, make_broker

from claude_peers.broker.broker import Broker
from claude_peers.broker.context import Options
from claude_peers.core import liveness
from claude_peers.core.delivery import TOPIC_TTL
from claude_peers.core.errors import (
    BadRequestError,
    NotYourPeerError,
    PeerNotFoundError,
    RetainedTooLongError,
    StoreError,
    TooManyTopicsError,
)
from claude_peers.core.limits import RETAINED, RETAINED_TEXT, SUBSCRIPTIONS, Limits
from claude_peers.core.models import State
from claude_peers.wire.topics import BroadcastRequest

pytestmark = pytest.mark.anyio

ANYBODY = Caller()


async def joined(rig, *names, **fields):
    return [(await rig.join(name=name, **fields)).peer.id for name in names]


async def publish(rig, topic="t", text="hi", **more):
    request = BroadcastRequest(from_id=more.pop("from_id", "cli"), topic=topic, text=text, **more)
    return await rig.broker.broadcasts.send(ANYBODY, request)


async def subscribe(rig, peer_id, pattern="t", caller=ANYBODY):
    return await rig.broker.topics.subscribe(caller, peer_id, pattern)


async def texts(rig, peer_id):
    return [message.text for message in await rig.store.unread(peer_id)]


async def failing(*_args, **_named):
    raise StoreError("The database failed: full", "Free some space.")


async def test_a_subscriber_gets_what_is_published_until_it_unsubscribes():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    assert (await subscribe(rig, ann)).patterns == ("t",)
    await publish(rig, text="1")
    assert (await rig.broker.topics.unsubscribe(ANYBODY, ann, "t")).patterns == ()
    await publish(rig, text="2")
    assert await texts(rig, ann) == ["1"]
    assert [message.topic for message in rig.transport.delivered] == ["t"]


async def test_unsubscribing_from_what_one_has_not_is_no_error():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann, "kept")
    assert (await rig.broker.topics.unsubscribe(ANYBODY, ann, "t")).patterns == ("kept",)
    assert (await rig.broker.topics.unsubscribe(ANYBODY, "zzzzzzzz", "t")).patterns == ()


async def test_nobody_subscribes_for_another_or_unsubscribes_it():
    rig = await make_broker()
    ann, caller = await rig.joins_as_process(7)
    await subscribe(rig, ann, caller=caller)
    with pytest.raises(NotYourPeerError):
        await subscribe(rig, ann, "u")
    with pytest.raises(NotYourPeerError):
        await rig.broker.topics.unsubscribe(ANYBODY, ann, "t")
    await publish(rig)
    assert await texts(rig, ann) == ["hi"]


async def test_a_bad_pattern_is_refused():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    with pytest.raises(BadRequestError):
        await subscribe(rig, ann, "a/#/b")
    assert await rig.store.subscriptions() == []


async def test_subscriptions_of_one_peer_are_bounded_but_may_be_repeated():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    for number in range(SUBSCRIPTIONS):
        await subscribe(rig, ann, f"t/{number}")
    with pytest.raises(TooManyTopicsError, match="wildcards"):
        await subscribe(rig, ann, "one/more")
    assert len((await subscribe(rig, ann, "t/0")).patterns) == SUBSCRIPTIONS
    await subscribe(rig, bob, "one/more")


async def test_a_peer_that_is_away_finds_its_copies_and_one_that_left_for_good_gets_none():
    rig = await make_broker()
    (gone,) = await joined(rig, "gone")
    away = (await rig.join(Caller(knows_secret=True), name="away", keys=("shell:a",))).peer.id
    for peer_id in (gone, away):
        await rig.broker.topics.subscribe(Caller(knows_secret=True), peer_id, "t")
        await rig.broker.peers.unregister(Caller(knows_secret=True), peer_id)
    published = await publish(rig)
    assert [(peer.id, peer.presence.value) for peer, _ in published.copies] == [(away, "away")]
    with pytest.raises(PeerNotFoundError):
        await subscribe(rig, gone, "u")


async def test_the_next_broker_knows_subscriptions_and_last_values():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    await subscribe(rig, ann)
    await publish(rig, text="kept", retain=True)
    successor = Broker(
        rig.store, rig.transport, clock=rig.clock, here=rig.machine.here(), options=Options()
    )
    await successor.open(LEADER)
    await successor.topics.subscribe(ANYBODY, bob, "#")
    assert await texts(rig, bob) == ["kept"]
    await successor.broadcasts.send(ANYBODY, BroadcastRequest(from_id="cli", topic="t", text="2"))
    assert await texts(rig, ann) == ["kept", "2"]


async def test_a_peer_that_is_forgotten_takes_its_subscriptions_along():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann)
    await rig.broker.peers.unregister(ANYBODY, ann)
    await rig.broker.tidy()
    assert await rig.store.subscriptions() == [(ann, "t")]
    rig.clock.passed += liveness.FORGET + 1
    await rig.broker.tidy()
    assert await rig.store.subscriptions() == []
    assert rig.broker.topics._subscriptions.peers() == ()


async def test_what_the_store_did_not_take_is_not_in_memory_either(monkeypatch):
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann, "first")
    with monkeypatch.context() as broken:
        for method in ("subscribe", "unsubscribe", "publish"):
            broken.setattr(rig.store, method, failing)
        with pytest.raises(StoreError):
            await subscribe(rig, ann, "second")
        with pytest.raises(StoreError):
            await rig.broker.topics.unsubscribe(ANYBODY, ann, "first")
        for retain in (True, False):
            with pytest.raises(StoreError):
                await publish(rig, "new", retain=retain)
    assert (await subscribe(rig, ann, "first")).patterns == ("first",)
    assert (await subscribe(rig, ann, "new")).given == 0
    assert rig.broker.mail.refused["store_failed"] == 2


# Last values


async def test_a_newcomer_gets_the_last_value_once_and_as_such():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await publish(rig, text="1", retain=True)
    rig.clock.passed += 5
    await publish(rig, text="2", retain=True)
    await publish(rig, text="3")
    for pattern, given in (("t", 1), ("t", 0), ("+", 0), ("#", 0)):
        assert (await subscribe(rig, ann, pattern)).given == given
    (message,) = await rig.store.unread(ann)
    assert (message.text, message.topic, message.retained) == ("2", "t", True)
    assert (message.from_id, message.sent_at) == ("cli", "2023-11-14T22:13:25.000Z")
    assert message.expires_at == rig.clock.wall() + TOPIC_TTL
    assert rig.transport.delivered == [message]


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (1, 1), (2, 2), (None, 1)])
async def test_a_last_value_has_the_quality_it_was_published_in(asked, given):
    rig = await make_broker()
    await publish(rig, text="kept", retain=True, qos=asked)
    rig = await make_broker(rig.store)  # also of the next broker
    (bob,) = await joined(rig, "bob", default_qos=0)
    await rig.broker.topics.subscribe(Caller(), bob, "t")
    assert [message.qos for message in await rig.store.unread(bob)] == [given]


async def test_who_was_there_gets_a_copy_and_no_last_value_for_a_further_pattern():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann, "a/+")
    await publish(rig, "a/b", retain=True)
    assert (await subscribe(rig, ann, "#")).given == 0
    assert [message.retained for message in await rig.store.unread(ann)] == [False]


async def test_an_empty_text_ends_a_last_value_and_is_told_to_subscribers():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    await subscribe(rig, ann)
    await publish(rig, text="1", retain=True)
    await publish(rig, text="", retain=True)
    assert await texts(rig, ann) == ["1", ""]
    assert (await subscribe(rig, bob)).given == 0
    assert await rig.store.retained() == []


async def test_a_last_value_lives_as_long_as_its_publisher_says():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    await publish(rig, text="short", retain=True, ttl_ms=60_000)
    await publish(rig, "u", text="for good", retain=True)
    rig.clock.passed += 30
    await subscribe(rig, ann)
    (message,) = await rig.store.unread(ann)
    assert message.expires_at == rig.clock.wall() + 30
    rig.clock.passed += 30
    assert (await subscribe(rig, bob, "#")).given == 1
    await rig.broker.tidy()
    assert [value.topic for value in await rig.store.retained()] == ["u"]


async def test_a_last_value_without_room_is_told_as_missed():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=1))
    (ann,) = await joined(rig, "ann")
    for topic in ("a", "b"):
        await publish(rig, topic, retain=True)
    subscribed = await subscribe(rig, ann, "#")
    assert (subscribed.given, subscribed.missed) == (1, 1)


async def test_last_values_of_a_muted_sender_are_held():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    await rig.broker.peers.mute(Caller(knows_secret=True), ann, bob, muted=True)
    await publish(rig, retain=True, from_id=bob)
    assert (await subscribe(rig, ann)).given == 1
    assert await rig.states(1) == [State.HELD]
    await subscribe(rig, ann, "live")
    await publish(rig, "live", from_id=bob)
    assert await rig.states(2) == [State.HELD]
    assert rig.transport.delivered == []


async def test_last_values_are_bounded_in_number_and_size():
    rig = await make_broker()
    for number in range(RETAINED):
        await publish(rig, f"t/{number}", retain=True)
    with pytest.raises(TooManyTopicsError, match="end another one"):
        await publish(rig, "one/more", retain=True)
    await publish(rig, "t/0", text="replaced", retain=True)
    await publish(rig, "one/more", text="", retain=True)
    await publish(rig, "t/1", text="", retain=True)
    await publish(rig, "one/more", retain=True)
    with pytest.raises(RetainedTooLongError, match=str(RETAINED_TEXT)):
        await publish(rig, "t/0", text="ä" * (RETAINED_TEXT // 2 + 1), retain=True)
    assert await rig.store.retained() == sorted(
        await rig.store.retained(), key=lambda value: value.topic
    )
    assert len(await rig.store.retained()) == RETAINED


async def test_a_failed_publication_leaves_the_value_that_was_there(monkeypatch):
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    await publish(rig, text="old", retain=True)
    with monkeypatch.context() as broken:
        broken.setattr(rig.store, "publish", failing)
        for text in ("new", ""):
            with pytest.raises(StoreError):
                await publish(rig, text=text, retain=True)
    await subscribe(rig, ann)
    assert await texts(rig, ann) == ["old"]
    # One that fails late does not undo a later one that did not.
    real, entered, release = rig.store.publish, asyncio.Event(), asyncio.Event()

    async def late(*_args, **_named):
        entered.set()
        await release.wait()
        return await failing()

    monkeypatch.setattr(rig.store, "publish", late)
    failed = asyncio.ensure_future(publish(rig, text="never", retain=True))
    await asyncio.wait_for(entered.wait(), 5)
    monkeypatch.setattr(rig.store, "publish", real)
    await publish(rig, text="newer", retain=True)
    release.set()
    with pytest.raises(StoreError):
        await failed
    await subscribe(rig, bob)
    assert await texts(rig, bob) == ["newer"]


async def test_who_subscribes_while_a_value_is_published_gets_it_once(monkeypatch):
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    real, entered, release = rig.store.publish, asyncio.Event(), asyncio.Event()

    async def held(*given, **named):
        monkeypatch.setattr(rig.store, "publish", real)
        entered.set()
        await release.wait()
        return await real(*given, **named)

    monkeypatch.setattr(rig.store, "publish", held)
    publishing = asyncio.ensure_future(publish(rig, text="now", retain=True))
    await asyncio.wait_for(entered.wait(), 5)
    await subscribe(rig, ann)
    release.set()
    await publishing
    assert await texts(rig, ann) == ["now"]
