"""One message for many: whom it reaches, what it costs, what its sender learns."""

import pytest
from broker.test_topics import ANYBODY, joined, publish, subscribe, texts
from support.brokers import Caller, make_broker

from claude_peers.core.audience import UNCONFIRMED
from claude_peers.core.delivery import TOPIC_TTL
from claude_peers.core.errors import (
    BadRequestError,
    DedupeConflictError,
    NotYourPeerError,
    RateLimitedError,
    TextTooLongError,
)
from claude_peers.core.limits import TEXT, Limits
from claude_peers.core.models import State
from claude_peers.wire.topics import BroadcastRequest

pytestmark = pytest.mark.anyio


async def send(rig, caller=ANYBODY, **fields):
    request = BroadcastRequest(**{"from_id": "cli", "text": "hi", **fields})
    return await rig.broker.broadcasts.send(caller, request)


def reached(published):
    return [peer.name for peer, _ in published.copies]


async def test_everybody_with_a_matching_pattern_has_a_copy_and_the_sender_none():
    rig = await make_broker()
    ann, bob, cem = await joined(rig, "ann", "bob", "cem")
    for peer_id, pattern in ((ann, "a/b"), (bob, "a/#"), (bob, "a/+"), (cem, "c")):
        await subscribe(rig, peer_id, pattern)
    published = await send(rig, topic="a/b", from_id=ann)
    assert reached(published) == ["bob"]
    assert await texts(rig, ann) == await texts(rig, cem) == []
    (message,) = await rig.store.unread(bob)
    assert (message.topic, message.from_id, message.retained) == ("a/b", ann, False)
    assert message.expires_at == rig.clock.wall() + TOPIC_TTL


async def test_order_of_a_topic_is_that_of_acceptance_for_every_subscriber():
    rig = await make_broker()
    peers = await joined(rig, "ann", "bob", "cem")
    for peer_id in peers:
        await subscribe(rig, peer_id)
    wanted = [str(number) for number in range(20)]
    for text in wanted:
        await publish(rig, text=text)
    for peer_id in peers:
        assert await texts(rig, peer_id) == wanted


@pytest.mark.parametrize("ttl_ms", [None, 0, 90_000])
async def test_a_copy_lives_an_hour_or_as_its_sender_says(ttl_ms):
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann)
    await send(rig, topic="t", ttl_ms=ttl_ms)
    assert (await rig.store.unread(ann))[0].expires_at == rig.clock.wall() + (
        ttl_ms / 1000 if ttl_ms else TOPIC_TTL
    )


async def test_a_full_mailbox_is_named_and_the_others_have_it():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=1))
    ann, bob = await joined(rig, "ann", "bob")
    for peer_id in (ann, bob):
        await subscribe(rig, peer_id)
    await rig.send(ann)
    published = await publish(rig)
    assert reached(published) == ["bob"]
    ((peer, error),) = published.refused
    assert (peer.name, error.code) == ("ann", "mailbox_full")
    assert rig.broker.mail.refused == {"mailbox_full": 1}


async def test_a_broadcast_sent_again_is_stored_once_and_reaches_who_had_no_room():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=1))
    ann, bob = await joined(rig, "ann", "bob")
    for peer_id in (ann, bob):
        await subscribe(rig, peer_id)
    before = await rig.send(ann)
    await send(rig, topic="t", dedupe_key="k")
    await rig.broker.mail.settle(ANYBODY, ann, (before.message.id,), "see")
    again = await send(rig, topic="t", dedupe_key="k")
    assert (reached(again), again.duplicate) == (["ann", "bob"], False)
    assert (await send(rig, topic="t", dedupe_key="k")).duplicate
    assert await texts(rig, ann) == await texts(rig, bob) == ["hi"]
    with pytest.raises(DedupeConflictError):
        await send(rig, topic="t", dedupe_key="k", text="other")
    assert not (await send(rig, topic="nobody", dedupe_key="k2")).duplicate


@pytest.mark.parametrize("subscribed", [True, False])
async def test_a_broadcast_sent_again_brings_no_old_last_value_back(subscribed):
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    if subscribed:
        await subscribe(rig, ann)
    said = {"topic": "t", "retain": True, "dedupe_key": "k"}
    assert not (await send(rig, text="building", **said)).duplicate
    await send(rig, topic="t", retain=True, text="done", from_id="other", dedupe_key="k")
    assert (await send(rig, text="building", **said)).duplicate
    assert rig.broker.topics.last_values.get("t").text == "done"
    assert [each.text for each in await rig.store.retained()] == ["done"]
    assert await texts(rig, ann) == ["building", "done"] * subscribed
    with pytest.raises(DedupeConflictError):
        await send(rig, text="testing", **said)
    assert not (await send(rig, text="testing", **said | {"topic": "other"})).duplicate


async def test_who_subscribes_while_the_store_looks_for_a_values_key_has_a_copy(monkeypatch):
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    kept = rig.store.kept

    async def meanwhile(*given, **more):
        await subscribe(rig, ann)
        return await kept(*given, **more)

    monkeypatch.setattr(rig.store, "kept", meanwhile)
    assert reached(await send(rig, topic="t", retain=True, dedupe_key="k")) == ["ann"]
    assert await texts(rig, ann) == ["hi"]


async def test_it_costs_one_message_and_one_for_every_ten_recipients():
    rig = await make_broker(limits=Limits(per_minute=60, burst=6, mailbox=0))
    peers = await joined(rig, *(f"p{number}" for number in range(20)))
    for peer_id in peers:
        await subscribe(rig, peer_id, "many")
    await subscribe(rig, peers[0], "one")
    await send(rig, topic="many", dedupe_key="k")
    for _ in range(3):
        await send(rig, topic="one")
    with pytest.raises(RateLimitedError):
        await send(rig, topic="one")
    with pytest.raises(RateLimitedError):
        await send(rig, topic="many", dedupe_key="other")
    with pytest.raises(RateLimitedError):
        await send(rig, topic="nobody", dedupe_key="k")
    assert (await send(rig, topic="many", dedupe_key="k")).duplicate
    assert rig.broker.mail.refused == {"rate_limited": 3}
    assert sum([len(await texts(rig, each)) for each in peers]) == 20 + 3


async def test_whoever_has_been_quiet_may_reach_everybody():
    rig = await make_broker(limits=Limits(per_minute=60, burst=2, mailbox=0))
    for peer_id in await joined(rig, *(f"p{number}" for number in range(40))):
        await subscribe(rig, peer_id)
    assert len(reached(await publish(rig))) == 40
    with pytest.raises(RateLimitedError):
        await publish(rig)


async def test_two_that_answer_each_other_by_a_topic_without_end_are_stopped():
    rig = await make_broker(limits=Limits(turns_burst=2))
    ann, bob, cem = await joined(rig, "ann", "bob", "cem")
    for peer_id in (ann, bob, cem):
        await subscribe(rig, peer_id)
    for peer_id, others in ((ann, ["bob", "cem"]), (bob, ["ann", "cem"]), (ann, ["bob", "cem"])):
        assert reached(await publish(rig, from_id=peer_id)) == others
    published = await publish(rig, from_id=bob)
    assert reached(published) == ["cem"]
    assert [(peer.name, error.code) for peer, error in published.refused] == [("ann", "loop_guard")]


async def test_nobody_broadcasts_under_anothers_id():
    rig = await make_broker()
    ann, caller = await rig.joins_as_process(7)
    with pytest.raises(NotYourPeerError):
        await publish(rig, from_id=ann)
    (bob,) = await joined(rig, "bob")
    await subscribe(rig, bob)
    await send(rig, caller, from_id=ann, topic="t")
    assert (await rig.store.unread(bob))[0].verified


async def test_a_remote_peer_subscribes_and_publishes_as_any():
    rig = await make_broker()
    (here,) = await joined(rig, "here")
    mac = Caller(machine="mac", elsewhere=True)
    there = (await rig.join(mac, name="there", keys=("shell:there",))).peer.id
    await rig.broker.topics.subscribe(mac, there, "t")
    await subscribe(rig, here)
    assert reached(await send(rig, topic="t", from_id=here)) == ["there"]
    await send(rig, mac, topic="t", from_id="cli")
    assert [m.from_id for m in await rig.store.unread(here)] == ["cli@mac"]


async def test_a_text_over_the_limit_is_refused_for_all():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann)
    with pytest.raises(TextTooLongError):
        await publish(rig, text="x" * (TEXT + 1))
    assert await texts(rig, ann) == []


# Scopes


async def test_a_scope_reaches_who_is_there_as_seen_from_the_sender():
    rig = await make_broker()
    sender, _ = await joined(rig, "sender", "same", cwd="/p")
    (other,) = await joined(rig, "other", cwd="/q")
    assert reached(await send(rig, scope="@dir", from_id=sender)) == ["same"]
    assert reached(await send(rig, scope="@dir", cwd="/q")) == ["other"]
    assert reached(await send(rig, scope="@machine", from_id=sender)) == ["same", "other"]
    assert [m.topic for m in await rig.store.unread(other)] == ["@dir", "@machine"]
    assert reached(await send(rig, scope="@oth*")) == ["other"]
    await rig.broker.peers.unregister(ANYBODY, other)
    assert reached(await send(rig, scope="@oth*")) == []


async def test_more_than_five_are_told_first_and_reached_once_they_are_known():
    rig = await make_broker()
    peers = await joined(rig, *(f"p{number}" for number in range(UNCONFIRMED)))
    assert len(reached(await send(rig, scope="@p*"))) == UNCONFIRMED
    peers += await joined(rig, "p-new")
    told = await send(rig, scope="@p*")
    assert ([peer.id for peer in told.unconfirmed], told.copies) == (peers, [])
    assert await texts(rig, peers[-1]) == []
    assert len(reached(await send(rig, scope="@p*", confirm=6))) == 6
    await joined(rig, "p-newer")
    assert len((await send(rig, scope="@p*", confirm=6)).unconfirmed) == 7


async def test_only_a_topic_has_a_last_value():
    rig = await make_broker()
    with pytest.raises(BadRequestError, match="last value"):
        await send(rig, scope="@machine", retain=True)


# The dialects of other implementations


@pytest.mark.parametrize("scope", ["machine", "@machine"])
async def test_a_scope_without_its_sign_is_a_forks_and_is_sent_at_once(scope):
    rig = await make_broker()
    await joined(rig, *(f"p{number}" for number in range(UNCONFIRMED + 1)))
    published = await send(rig, scope=scope)
    assert bool(published.unconfirmed) == scope.startswith("@")
    assert len(published.copies) == (0 if published.unconfirmed else UNCONFIRMED + 1)


async def test_a_workspace_reaches_its_directory():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann", cwd="/src/shop")
    await joined(rig, "bob", cwd="/src/other")
    assert reached(await send(rig, workspace="shop")) == ["ann"]
    assert [m.topic for m in await rig.store.unread(ann)] == ["@shop"]


@pytest.mark.parametrize(
    "fields", [{}, {"topic": "t", "scope": "@repo"}, {"scope": "@repo", "workspace": "w"}]
)
async def test_a_broadcast_says_in_exactly_one_way_for_whom_it_is(fields):
    rig = await make_broker()
    with pytest.raises(BadRequestError, match="topic, scope"):
        await send(rig, **fields)


async def test_copies_are_ordinary_messages_with_a_story_of_their_own():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    for peer_id in (ann, bob):
        await subscribe(rig, peer_id)
    published = await publish(rig)
    first, second = (message.id for _, message in published.copies)
    await rig.broker.mail.settle(Caller(), ann, (first,), "see")
    assert await rig.states(first, second) == [State.SEEN, State.QUEUED]
    rig.clock.passed += TOPIC_TTL + 1
    await rig.broker.tidy()
    assert [each.id for each in await rig.store.dead_letters(limit=9)] == [second]
