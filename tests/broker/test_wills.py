"""When a last will is published: once, when its peer is lost, and never for who says goodbye."""

import asyncio
from itertools import pairwise

import pytest
from support.brokers import Caller, make_broker
from support.loop import until

from claude_peers.broker import wills
from claude_peers.core.errors import BadRequestError, RetainedTooLongError, StoreError
from claude_peers.core.limits import RETAINED_TEXT, Limits
from claude_peers.core.models import PeerId
from claude_peers.wire.topics import BroadcastRequest
from claude_peers.wire.wills import LastWill

pytestmark = pytest.mark.anyio

LWT = LastWill(topic="status/ann", message="ann is gone", qos=1)
LONG = 61.0
"""Seconds after which who was silent is gone."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(wills, "RECONNECT", 0.0)


async def scene(lwt=LWT, **options):
    """Return a rig with somebody who listens and Ann, who leaves a will."""
    rig = await make_broker(**options)
    joined = await rig.join(name="listener")
    rig.transport.linked.add(joined.peer.id)
    await rig.broker.topics.subscribe(Caller(), joined.peer.id, "status/#")
    ann = await rig.join(name="ann", lwt=lwt)
    return rig, joined.peer.id, ann


async def told(rig, listener):
    """Return what the listener has been told, in the order of acceptance."""
    await rig.settled()
    mail = await rig.store.unread(PeerId(listener))
    return [(each.text, each.from_id, each.topic, each.qos) for each in mail]


async def silence(rig, seconds=LONG):
    rig.clock.passed += seconds
    await rig.broker.peers.sweep()
    await rig.settled()


async def test_who_is_silent_for_too_long_is_missed_once():
    rig, listener, ann = await scene()
    await silence(rig, 59)
    assert await told(rig, listener) == []
    await silence(rig, 2)
    await silence(rig)
    await rig.broker.tidy()
    assert await told(rig, listener) == [("ann is gone", ann.peer.id, "status/ann", 1)]


async def test_who_dies_is_missed_and_its_will_is_verified():
    rig, listener, _ = await scene(lwt=None)
    process = rig.machine.start(7)
    await rig.join(Caller(processes=(process,)), pid=7, lwt=LWT)
    rig.machine.end(7)
    await rig.broker.peers.sweep()
    assert len(await told(rig, listener)) == 1
    (message,) = await rig.store.unread(PeerId(listener))
    assert message.verified


async def test_who_leaves_is_not_missed():
    rig, listener, ann = await scene()
    await rig.broker.peers.unregister(Caller(), ann.peer.id)
    await silence(rig)
    await rig.broker.tidy()
    assert await told(rig, listener) == []
    assert await rig.store.wills() == []


async def test_who_is_replaced_by_its_successor_in_the_same_process_is_not_missed():
    rig, listener, _ = await scene(lwt=None)
    await rig.join(pid=9, lwt=LWT)
    await rig.join(pid=9)
    await silence(rig, 1)
    assert await told(rig, listener) == []


async def test_who_comes_back_can_be_missed_again():
    rig, listener, ann = await scene()
    await silence(rig)
    again = await rig.join(token=ann.token)
    assert again.peer.id == ann.peer.id
    await silence(rig)
    assert len(await told(rig, listener)) == 2
    await rig.broker.peers.heartbeat(Caller(), ann.peer.id)
    await silence(rig)
    assert len(await told(rig, listener)) == 3


async def test_another_will_takes_the_place_of_the_first_and_none_leaves_it():
    rig, listener, ann = await scene()
    await rig.join(token=ann.token, lwt=LastWill(topic="status/x", message="later"))
    await rig.join(token=ann.token)
    await silence(rig)
    assert [each[:1] + each[2:] for each in await told(rig, listener)] == [("later", "status/x", 0)]


async def test_a_will_can_be_taken_back():
    rig, listener, ann = await scene()
    await rig.join(token=ann.token, lwt=LastWill(topic=""))
    await rig.join(token=ann.token, lwt=LastWill(topic=""))
    await silence(rig)
    assert await told(rig, listener) == []


@pytest.mark.parametrize(
    ("lwt", "error"),
    [
        (LastWill(topic="a/#"), BadRequestError),
        (LastWill(topic="@machine"), BadRequestError),
        (LastWill(topic="a", message="x" * (RETAINED_TEXT + 1)), RetainedTooLongError),
    ],
)
async def test_a_will_that_could_not_be_published_is_refused_with_the_registration(lwt, error):
    rig = await make_broker()
    with pytest.raises(error):
        await rig.join(lwt=lwt)
    assert list(rig.broker.roster) == []


async def test_a_will_that_is_to_be_kept_is_the_topics_last_value():
    rig, _, _ = await scene(LastWill(topic="status/ann", message="offline", retain=True))
    await silence(rig)
    later = await rig.join()
    given = await rig.broker.topics.subscribe(Caller(), later.peer.id, "status/+")
    assert given.given == 1
    (message,) = await rig.store.unread(later.peer.id)
    assert (message.text, message.qos) == ("offline", 0)


async def test_what_was_published_since_is_not_overwritten_by_a_will_that_is_spent():
    rig, _, ann = await scene(LastWill(topic="status/ann", message="offline", retain=True))
    await silence(rig)
    request = BroadcastRequest(text="under repair", from_id="cli", topic="status/ann", retain=True)
    await rig.broker.broadcasts.send(Caller(), request)
    await rig.broker.wills.lost(ann.peer)
    assert rig.broker.topics.last_values.get("status/ann").text == "under repair"


async def test_a_will_that_cannot_be_kept_is_published_all_the_same(monkeypatch):
    rig, listener, _ = await scene(LastWill(topic="status/ann", message="offline", retain=True))
    monkeypatch.setattr("claude_peers.broker.retained.RETAINED", 0)
    await silence(rig)
    assert len(await told(rig, listener)) == 1
    assert await rig.store.retained() == []


async def test_a_full_mailbox_misses_a_will_and_others_do_not():
    rig, listener, _ = await scene(limits=Limits(mailbox=1))
    other = await rig.join()
    await rig.broker.topics.subscribe(Caller(), other.peer.id, "status/ann")
    await rig.send(listener, "full")
    rig.transport.linked.add(other.peer.id)
    await silence(rig)
    assert [each[0] for each in await told(rig, listener)] == ["full"]
    assert [each[0] for each in await told(rig, other.peer.id)] == ["ann is gone"]


# A connection that broke


async def elapse(rig):
    """Let the time to come back be over."""
    ticked = []
    asyncio.get_running_loop().call_later(0.001, ticked.append, 1)
    await until(lambda: ticked)
    await rig.settled()


async def test_who_does_not_come_back_after_its_connection_broke_is_missed():
    rig, listener, ann = await scene()
    rig.transport.linked.add(ann.peer.id)
    rig.transport.linked.discard(ann.peer.id)
    rig.broker.stream_ended(ann.peer.id, missed=True)
    await elapse(rig)
    assert len(await told(rig, listener)) == 1
    assert ann.peer.id in {peer.id for peer in rig.broker.roster.present()}
    await silence(rig)
    assert len(await told(rig, listener)) == 1


async def test_who_is_connected_again_is_not_missed():
    rig, listener, ann = await scene()
    rig.broker.stream_ended(ann.peer.id, missed=True)
    rig.transport.linked.add(ann.peer.id)
    await elapse(rig)
    assert await told(rig, listener) == []


async def test_who_was_heard_of_meanwhile_is_not_missed():
    rig, listener, ann = await scene()
    rig.broker.stream_ended(ann.peer.id, missed=True)
    rig.clock.passed += 1
    await rig.broker.peers.heartbeat(Caller(), ann.peer.id)
    await elapse(rig)
    assert await told(rig, listener) == []


async def test_who_looks_at_its_mail_meanwhile_is_not_missed():
    rig, listener, ann = await scene()
    rig.broker.stream_ended(ann.peer.id, missed=True)
    rig.clock.passed += 1
    rig.store.calls.clear()
    assert await rig.broker.mail.peek(Caller(token_hash=ann.peer.token_hash), ann.peer.id) == []
    await elapse(rig)
    assert await told(rig, listener) == []
    assert "save_peer" in rig.store.calls  # its token binds it, once
    rig.store.calls.clear()
    await rig.broker.mail.peek(Caller(token_hash=ann.peer.token_hash), ann.peer.id)
    await rig.settled()
    assert "save_peer" not in rig.store.calls


async def test_a_look_of_its_user_is_no_sign_of_a_peers_life():
    rig, listener, ann = await scene()
    rig.broker.stream_ended(ann.peer.id, missed=True)
    rig.clock.passed += 1
    await rig.broker.mail.peek(Caller(knows_secret=True), ann.peer.id)
    await elapse(rig)
    assert len(await told(rig, listener)) == 1


@pytest.mark.parametrize("heard", [False, True])
async def test_whose_process_lives_has_a_minute_to_come_back(monkeypatch, heard):
    monkeypatch.setattr(wills, "RECONNECT", 10.0)
    rig, listener, _ = await scene(lwt=None)
    mesh, caller = await rig.joins_as_process(7, lwt=LWT)
    later = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda *asked: later.append(asked))
    rig.broker.stream_ended(mesh, missed=True)
    looks = [asked for asked in later if asked[0] == wills.RECONNECT]
    for seconds in (10, 50):
        ((_, look, *given),) = looks
        later.clear()
        rig.clock.passed += seconds
        assert await told(rig, listener) == []
        if heard:
            await rig.broker.mail.peek(caller, mesh)
        look(*given)
        looks = later[:]
        if heard:
            break
    assert looks == []
    assert len(await told(rig, listener)) == (0 if heard else 1)


async def test_the_end_of_a_stream_that_means_nothing_is_no_loss():
    rig, listener, ann = await scene()
    rig.broker.stream_ended(ann.peer.id, missed=False)
    rig.broker.stream_ended(PeerId("nobody"), missed=True)
    await elapse(rig)
    assert await told(rig, listener) == []


# Failures, and other brokers


async def test_a_will_that_could_not_be_stored_is_published_with_a_later_round(monkeypatch):
    rig, listener, _ = await scene()
    real = rig.store.publish_will

    async def broken(*_given, **_named):
        raise StoreError("full", "Free some space.")

    monkeypatch.setattr(rig.store, "publish_will", broken)
    await silence(rig)
    assert await told(rig, listener) == []
    monkeypatch.setattr(rig.store, "publish_will", real)
    await rig.broker.tidy()
    await rig.broker.tidy()
    assert len(await told(rig, listener)) == 1


async def test_a_failure_undoes_nothing_that_came_meanwhile(monkeypatch):
    rig, listener, ann = await scene()

    async def broken(*_given, **_named):
        await rig.broker.wills.came(ann.peer, LastWill(topic="status/y", message="newer"))
        raise StoreError("full", "Free some space.")

    real = rig.store.publish_will
    monkeypatch.setattr(rig.store, "publish_will", broken)
    await silence(rig)
    monkeypatch.setattr(rig.store, "publish_will", real)
    await rig.broker.tidy()
    assert [each[0] for each in await told(rig, listener)] == ["newer"]


async def test_the_next_broker_publishes_what_the_last_could_not_and_nothing_twice():
    rig, listener, ann = await scene()
    rig.broker.wills.stop()  # it hands over
    rig.broker.stream_ended(ann.peer.id, missed=True)
    await silence(rig)
    assert await told(rig, listener) == []
    for _ in range(2):
        later = await make_broker(rig.store)
        await later.broker.tidy()
        assert len(await told(later, listener)) == 1


async def test_a_broker_that_has_just_taken_over_misses_nobody_before_the_time():
    rig, listener, _ = await scene()
    later = await make_broker(rig.store)
    await silence(later, 59)
    await later.broker.tidy()
    assert await told(later, listener) == []
    await silence(later, 2)
    assert len(await told(later, listener)) == 1


async def test_a_revoked_machine_leaves_no_word():
    rig, listener, _ = await scene(lwt=None)
    await rig.join(Caller(machine="far"), lwt=LWT)
    assert await rig.broker.peers.evict("far") == 1
    assert await told(rig, listener) == []


async def test_who_is_forgotten_is_not_missed_any_more():
    rig, listener, _ = await scene()
    rig.broker.wills.stop()
    await silence(rig)
    rig.broker.wills._stopped = False
    await rig.broker.roster.forget(gone_since="9999")
    await rig.broker.wills.tidy()
    assert await told(rig, listener) == []
    assert rig.broker.wills._wills == {}


CROWD = 100
"""Peers that are lost at once."""
FEW = Limits(per_minute=12, burst=5, mailbox=0)


@pytest.mark.threat("T23")
async def test_a_crowd_that_comes_only_to_be_lost_floods_nobody_and_no_will_is_dropped(caplog):
    rig, listener, _ = await scene(lwt=None, limits=FEW)
    for number in range(CROWD):
        await rig.join(name=f"n{number}", lwt=LastWill(topic="status/n", message=f"{number}"))
    await silence(rig)
    assert len(await told(rig, listener)) == FEW.burst
    assert "background work failed" not in caplog.text
    counts = []
    while len(texts := [each[0] for each in await told(rig, listener)]) < CROWD:
        counts.append(len(texts))
        rig.clock.passed += 15.0  # a round
        await rig.broker.tidy()
    assert max(after - before for before, after in pairwise(counts)) <= FEW.burst
    assert len(counts) >= (CROWD - FEW.burst) / FEW.per_minute * 4
    assert texts == [f"{number}" for number in range(CROWD)]  # in their order, each once
    assert "last wills wait" in caplog.text


async def test_one_machines_crowd_keeps_nobody_elses_will_waiting():
    rig, listener, _ = await scene(lwt=None, limits=FEW)
    for number in range(CROWD):
        lwt = LastWill(topic="status/far", message="far")
        await rig.join(Caller(machine="far"), name=f"n{number}", lwt=lwt)
    await rig.join(name="ann", lwt=LWT)
    await silence(rig)
    await rig.broker.tidy()
    texts = [each[0] for each in await told(rig, listener)]
    assert (texts.count("far"), texts.count("ann is gone")) == (FEW.burst, 1)


async def test_who_comes_back_before_its_will_had_its_turn_is_not_missed():
    rig, listener, _ = await scene(lwt=None, limits=FEW)
    crowd = [await rig.join(name=f"n{n}", lwt=LWT) for n in range(FEW.burst + 1)]
    await silence(rig)
    assert len(await told(rig, listener)) == FEW.burst
    await rig.broker.peers.heartbeat(Caller(), crowd[-1].peer.id)
    await silence(rig, 15)
    await rig.broker.tidy()
    assert len(await told(rig, listener)) == FEW.burst
