"""Pushes over connections that acknowledge: leased, a page at a time, given back at the end."""

import asyncio

import pytest
from support.brokers import Caller, make_broker
from support.loop import until

from claude_peers.broker.ports import Claim
from claude_peers.core.limits import PAGE
from claude_peers.core.models import Message
from claude_peers.core.profile import AT_MOST_ONCE
from claude_peers.transports import live
from claude_peers.transports.leased import attach
from claude_peers.transports.live import LiveConnections

pytestmark = pytest.mark.anyio


class Sink:
    """A connection that takes `room` messages before it is clogged."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.messages: list[Message] = []
        self.ended = False

    def write_message(self, message: Message) -> None:
        self.messages.append(message)

    def hang_up(self) -> None:
        self.ended = True

    @property
    def clogged(self) -> bool:
        return self.ended or len(self.messages) >= self.room

    @property
    def ids(self) -> list[int]:
        return [message.id for message in self.messages]


class Scene:
    """A broker, and the streams of one peer."""

    def __init__(self, rig, owner) -> None:
        self.rig = rig
        self.owner = owner
        self.live = LiveConnections(rig.store, rig.broker.roster.get)
        rig.broker._context.transport = rig.broker.transport = self.live

    def attach(self, sink: Sink, **more):
        given = {"via": "test", "ack_within": 60.0, **more}
        hand = self.rig.broker.streams.open(Caller(), self.owner, **given)
        return attach(self.live, sink, hand)

    async def send(self, *texts: str, **fields) -> list[int]:
        sent = [(await self.rig.send(self.owner, text, **fields)).message.id for text in texts]
        await self.quiet()
        return sent

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        while waiting := [*self.live._tasks, *self.rig.broker._context._background]:
            await asyncio.wait(waiting)


@pytest.fixture
async def scene():
    rig = await make_broker()
    return Scene(rig, (await rig.join(name="bob")).peer.id)


async def test_what_is_offered_is_leased_and_then_written(scene):
    sink = Sink()
    scene.attach(sink)
    ids = await scene.send("a", "b")
    assert sink.ids == ids
    assert await scene.rig.states(*ids) == ["leased", "leased"]


async def test_a_clogged_stream_has_one_page_and_goes_on_in_order_when_it_drained(scene):
    ids = await scene.send(*(str(n) for n in range(2 * PAGE)))
    sink = Sink(room=3)
    stream = scene.attach(sink)
    await scene.quiet()
    assert sink.ids == ids[:3]
    states = await scene.rig.states(*ids)
    assert (states.count("leased"), states.count("queued")) == (PAGE, PAGE)
    sink.room = 1000
    stream.drained()
    await scene.quiet()
    assert sink.ids == ids


async def test_what_is_acknowledged_elsewhere_before_it_was_written_is_not_written(scene):
    ids = await scene.send("a", "b", "c")
    sink = Sink(room=1)
    stream = scene.attach(sink)
    await scene.quiet()
    await stream.hand.seen([ids[1]])
    sink.room = 1000
    stream.drained()
    await scene.quiet()
    assert sink.ids == [ids[0], ids[2]]


async def test_a_store_that_fails_is_asked_again_with_the_next_message(scene):
    sink = Sink()
    scene.rig.store.broken.add("hand_out")
    scene.attach(sink)
    (first,) = await scene.send("a")
    assert sink.ids == []
    scene.rig.store.broken.clear()
    (second,) = await scene.send("b")
    assert sink.ids == [first, second]


async def test_after_a_store_that_failed_mail_comes_though_nothing_else_happens(scene, monkeypatch):
    monkeypatch.setattr(live, "AGAIN", 0.01)
    sink = Sink()
    scene.rig.store.broken.add("hand_out")
    scene.attach(sink)
    (first,) = await scene.send("a")
    scene.rig.store.broken.clear()
    await until(lambda: sink.ids)
    assert sink.ids == [first]


async def test_a_stream_that_ends_while_it_takes_a_page_gives_it_back(scene):
    ids = await scene.send("a")
    sink, entered, go_on = Sink(), asyncio.Event(), asyncio.Event()
    real = scene.rig.store.hand_out

    async def held(*given, **named):
        found = await real(*given, **named)
        entered.set()
        await go_on.wait()
        return found

    scene.rig.store.hand_out = held
    stream = scene.attach(sink)
    await entered.wait()
    stream.end()
    scene.live.detach(stream)
    go_on.set()
    await scene.quiet()
    assert sink.ids == []
    assert await scene.rig.states(*ids) == ["queued"]


async def test_the_newest_stream_wins_and_gets_what_the_one_before_had_in_hand(scene):
    first, second = Sink(), Sink()
    scene.attach(first)
    ids = await scene.send("a", "b")
    scene.attach(second)
    await scene.quiet()
    assert first.ended
    assert (first.ids, second.ids) == (ids, ids)
    assert [message.deliveries for message in second.messages] == [1, 1]


async def test_at_most_once_is_over_when_it_was_handed_to_the_system(scene):
    sink = Sink(room=1)
    stream = scene.attach(sink)
    (number,) = await scene.send("a", qos=AT_MOST_ONCE)
    assert await scene.rig.states(number) == ["leased"]  # written, and still in the buffer
    sink.room = 1000
    stream.drained()
    await scene.quiet()
    assert await scene.rig.states(number) == ["seen"]


async def test_nobody_is_told_that_something_was_read_elsewhere(scene):
    sink = Sink()
    scene.attach(sink)
    ids = await scene.send("a")
    scene.live.settled(scene.owner, ids)
    scene.live.look_again(scene.owner)
    await scene.quiet()
    assert sink.ids == ids


async def test_coming_back_settles_only_what_such_a_stream_was_handed(scene):
    stream = scene.attach(Sink(room=1), via="other")
    (taken,) = await scene.send("taken")
    scene.attach(Sink(room=1))
    await scene.quiet()
    stream = scene.attach(Sink(room=2), via="other")
    (later,) = await scene.send("later")
    stream.end()
    scene.live.detach(stream)
    await scene.quiet()
    stream = scene.attach(Sink())
    await scene.quiet()
    await stream.hand.seen([later])
    (otherwise,) = await scene.send("handed to another kind of stream")
    again = Sink()
    scene.attach(again, via="other", upto=otherwise)
    await scene.quiet()
    assert again.ids == [taken, otherwise]  # no such stream has said what arrived
    assert again.messages[0].deliveries


async def test_coming_back_does_not_settle_what_was_handed_out_again_behind_newer_mail(scene):
    """Ids are no order: what came back from elsewhere may have been on the way when it broke."""
    first, *rest = await scene.send("a", "b", "c")
    elsewhere = await scene.rig.store.hand_out(scene.owner, Claim(limit=1), now=0.0)
    assert [each.id for each in elsewhere] == [first]
    sink = Sink()
    stream = scene.attach(sink)
    await scene.quiet()
    scene.rig.clock.passed += 1
    scene.rig.broker._context.give_back(scene.owner, (first,), "elsewhere")
    await scene.quiet()
    assert sink.ids == [*rest, first]
    stream.end()
    scene.live.detach(stream)
    await scene.quiet()
    again = Sink()
    scene.attach(again, upto=rest[-1])  # all that arrived before the connection broke
    await scene.quiet()
    assert again.ids == [first]
    assert await scene.rig.states(*rest) == ["seen", "seen"]


async def test_what_arrived_is_not_forgotten_when_the_store_fails(scene):
    stream = scene.attach(Sink())
    ids = await scene.send("a", "b")
    stream.end()
    scene.live.detach(stream)
    await scene.quiet()
    scene.rig.store.broken.add("move")
    again = Sink()
    stream = scene.attach(again, upto=ids[-1])
    await scene.quiet()
    scene.rig.store.broken.clear()
    stream.look_again()
    await scene.quiet()
    assert again.ids == []
    assert await scene.rig.states(*ids) == ["seen", "seen"]


async def test_who_acknowledged_everything_may_still_say_where_it_was(scene):
    stream = scene.attach(Sink())
    ids = await scene.send("a", "b")
    await stream.hand.seen(ids)
    again = Sink()
    scene.attach(again, upto=ids[-1])
    await scene.quiet()
    assert await scene.send("c") == again.ids
