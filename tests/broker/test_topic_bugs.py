"""What upstream implementations did wrong about topics, and this broker does not.

The numbers are those of the project's list of upstream bugs: P of agentmesh 0.1, B4 of 0.4.
"""

import pytest
from broker.test_topics import ANYBODY, joined, publish, subscribe, texts
from support.brokers import Caller, make_broker

from claude_peers.broker.operations import OPERATIONS
from claude_peers.core.errors import NotYourPeerError, PeerNotFoundError, RateLimitedError
from claude_peers.core.limits import Limits
from claude_peers.core.models import State
from claude_peers.wire.channel import meta
from claude_peers.wire.records import message_view

pytestmark = pytest.mark.anyio


async def call(rig, path, caller=ANYBODY, **body):
    (declared,) = (each for each in OPERATIONS if each.path == path)
    return await declared(rig.broker, caller, body)


@pytest.mark.bug("P6")
async def test_p6_a_ghost_does_not_subscribe_and_gets_no_rows():
    rig = await make_broker()
    with pytest.raises(PeerNotFoundError):
        await subscribe(rig, "zzzzzzzz")
    assert (await call(rig, "/broadcast", from_id="cli", topic="t", text="x"))["delivered_to"] == []
    assert (await rig.store.ledger()).accepted == 0


@pytest.mark.bug("P7")
async def test_p7_a_token_subscribes_its_own_peer_only():
    rig = await make_broker(require_token=True)
    (ann,) = await joined(rig, "ann")
    with pytest.raises(NotYourPeerError):
        await subscribe(rig, ann, caller=Caller(token_hash="another"))


@pytest.mark.bug("P10")
async def test_p10_the_answer_says_how_many_and_who():
    rig = await make_broker()
    ann, bob = await joined(rig, "ann", "bob")
    for peer_id in (ann, bob):
        await call(rig, "/subscribe", id=peer_id, topic="t")
    answer = await call(rig, "/broadcast", from_id=ann, topic="t", text="x")
    assert (answer["ok"], answer["delivered_to"], answer["sent_to"]) == (True, [bob], 1)
    assert answer["copies"] == [
        {"id": bob, "name": "bob", "presence": "present", "message_id": 1, "state": "queued"}
    ]
    assert answer["refused"] == []
    assert "preview" not in answer


@pytest.mark.bug("B4-2")
async def test_b4_2_a_last_value_is_never_a_dead_letter():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await publish(rig, text="kept", retain=True)
    await subscribe(rig, ann)
    rig.clock.passed += 32  # the sweep that took it away
    await rig.broker.tidy()
    assert await texts(rig, ann) == ["kept"]
    rig.clock.passed += 7 * 24 * 3600
    await rig.broker.tidy()
    assert (await call(rig, "/dead-letters", id=ann))["dead_letters"] == []
    assert (await rig.store.ledger()).balanced


@pytest.mark.bug("B4-5")
async def test_b4_5_a_subscriber_that_polls_slowly_loses_nothing():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann)
    await publish(rig)
    for _ in range(11):
        rig.clock.passed += 300
        await rig.broker.tidy()
    assert await rig.poll(ann) == [1]


@pytest.mark.bug("B4-14")
async def test_b4_14_overlapping_patterns_deliver_once_and_list_once():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    for pattern in ("o/+", "o/#", "o/x", "#"):
        await subscribe(rig, ann, pattern)
    answer = await call(rig, "/broadcast", from_id="cli", topic="o/x", text="x")
    assert answer["delivered_to"] == [ann]
    assert await rig.poll(ann) == [1]


@pytest.mark.bug("B4-15")
async def test_b4_15_an_expired_copy_is_not_handed_out_before_the_sweep():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann)
    await publish(rig, ttl_ms=1000)
    rig.clock.passed += 2
    assert await rig.poll(ann) == []


@pytest.mark.bug("B4-19")
async def test_b4_19_many_names_are_one_source():
    rig = await make_broker(limits=Limits(burst=2, mailbox=0))
    for name in ("cli", "other"):
        await publish(rig, from_id=name)
    with pytest.raises(RateLimitedError):
        await publish(rig, from_id="third")


@pytest.mark.bug("B4-24")
async def test_b4_24_a_notification_names_the_topic_in_strings_only():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await publish(rig, text="kept", retain=True)
    await subscribe(rig, ann)
    direct = await rig.send(ann)
    (kept, _) = await rig.store.unread(ann)
    told = meta(message_view(kept), {})
    assert (told["topic"], told["retained"]) == ("t", "true")
    assert all(isinstance(value, str) for value in told.values())
    assert not {"topic", "retained"} & set(meta(message_view(direct.message), {}))


async def test_a_poll_tells_the_topic_as_agentmesh_has_it_null_for_none():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    await subscribe(rig, ann)
    await publish(rig)
    await rig.send(ann)
    answer = await call(rig, "/poll-messages", id=ann)
    assert [view["topic"] for view in answer.body["messages"]] == ["t", None]
    answer.written(True)
    await rig.settled()


async def test_a_preview_and_a_duplicate_are_told():
    rig = await make_broker()
    peers = await joined(rig, *(f"p{number}" for number in range(6)))
    body = {"from_id": "cli", "scope": "@p*", "text": "x", "dedupe_key": "k"}
    answer = await call(rig, "/broadcast", **body)
    assert [each["id"] for each in answer["preview"]] == peers
    assert (answer["delivered_to"], await rig.unread(peers[0])) == ([], [])
    sent = await call(rig, "/broadcast", **body, confirm=6)
    assert sent["delivered_to"] == peers
    assert (await call(rig, "/broadcast", **body, confirm=6))["duplicate"] is True


async def test_a_refused_copy_is_told_with_its_remedy():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=1))
    (ann,) = await joined(rig, "ann")
    await call(rig, "/subscribe", id=ann, topic="t")
    await rig.send(ann)
    answer = await call(rig, "/broadcast", from_id="cli", topic="t", text="x")
    (refused,) = answer["refused"]
    assert (refused["id"], refused["code"], answer["delivered_to"]) == (ann, "mailbox_full", [])
    assert "check_messages" in refused["remedy"]
    assert await rig.states(1) == [State.QUEUED]


async def test_dead_letters_name_their_topic():
    rig = await make_broker()
    (ann,) = await joined(rig, "ann")
    assert (await call(rig, "/subscribe", id=ann, topic="t"))["topics"] == ["t"]
    await publish(rig, ttl_ms=1)
    rig.clock.passed += 1
    await rig.broker.tidy()
    (letter,) = (await call(rig, "/dead-letters", id=ann))["dead_letters"]
    assert letter["topic"] == "t"
    assert await call(rig, "/unsubscribe", id=ann, topic="t") == {"ok": True, "topics": []}
