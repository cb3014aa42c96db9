"""Pushes over live connections: in order, once each, and never faster than the peer reads."""

import asyncio
import json

import anyio
import pytest
from support.brokers import NO_LIMITS, FlakyStore, draft
from support.loop import until

from claude_peers.core.delivery import Event
from claude_peers.core.limits import PAGE
from claude_peers.core.models import Peer, PeerId
from claude_peers.transports import TRANSPORTS, live
from claude_peers.transports.live import LiveConnections

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")
ANN = Peer(id=PeerId("ann"), name="ann", summary="works", cwd="/r", host="here")


class Sink:
    """A connection that takes `room` frames before it is clogged."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.frames: list[dict] = []
        self.ended = False

    def hang_up(self) -> None:
        self.ended = True

    def write(self, frame: bytes) -> None:
        assert frame.endswith(b"\n")
        self.frames.append(json.loads(frame))

    @property
    def clogged(self) -> bool:
        return len(self.frames) >= self.room

    @property
    def texts(self) -> list[str]:
        return [frame["message"]["text"] for frame in self.frames]


class Mesh:
    """A store, the connections, and a broker's way of sending."""

    def __init__(self) -> None:
        self.store = FlakyStore()
        self.live = LiveConnections(self.store, {"ann": ANN}.get)

    async def send(self, *texts: str, to: str = BOB, sender: str = "ann") -> list[int]:
        receipts = [
            await self.store.accept(draft(text, to=to, sender=sender), NO_LIMITS, now=0.0)
            for text in texts
        ]
        for receipt in receipts:
            self.live.deliver(receipt.message)
        return [receipt.message.id for receipt in receipts]

    async def attach(self, sink: Sink):
        stream = self.live.attach(BOB, sink)
        await self.quiet()
        return stream

    async def quiet(self) -> None:
        """Wait until no pump runs."""
        while waiting := list(self.live._tasks):
            await asyncio.wait(waiting)

    @property
    def pages(self) -> int:
        return self.store.calls.count("unread")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def numbered(count: int, first: int = 0) -> list[str]:
    return [str(n) for n in range(first, first + count)]


def test_the_transport_is_named_as_in_the_list():
    assert LiveConnections.name in TRANSPORTS


async def test_a_peer_that_connects_gets_what_waits_and_then_what_comes(mesh):
    await mesh.send("old", "older")
    sink = Sink()
    await mesh.attach(sink)
    await mesh.send("new")
    assert sink.texts == ["old", "older", "new"]


@pytest.mark.bug("U11")
async def test_a_message_is_told_with_its_sender_as_far_as_it_is_known(mesh):
    sink = Sink()
    await mesh.attach(sink)
    await mesh.send("known")
    await mesh.send("unknown", sender="cli")
    assert [frame["from"] for frame in sink.frames] == [
        {"name": "ann", "summary": "works", "cwd": "/r", "host": "here"},
        None,
    ]
    assert sink.frames[0]["message"]["to_id"] == "bob"


async def test_a_message_is_told_with_the_time_at_which_it_expires(mesh):
    sink = Sink()
    await mesh.attach(sink)
    await mesh.send("hello")
    assert sink.frames[0]["message"]["expires_at"] == 1000.0


@pytest.mark.bug("U11")
async def test_a_peer_that_keeps_up_costs_no_query(mesh):
    sink = Sink()
    await mesh.attach(sink)
    asked = mesh.pages
    await mesh.send(*numbered(10))
    assert sink.texts == numbered(10)
    assert mesh.pages == asked


async def test_mail_for_others_and_for_nobody_is_not_pushed(mesh):
    sink = Sink()
    await mesh.attach(sink)
    await mesh.send("other", to="cid")
    assert sink.frames == []


async def test_a_backlog_is_read_up_page_by_page(mesh):
    texts = numbered(2 * PAGE + 1)
    await mesh.send(*texts)
    sink = Sink()
    await mesh.attach(sink)
    assert sink.texts == texts
    assert mesh.pages == 3


@pytest.mark.bug("B4-17")
async def test_a_clogged_connection_is_written_to_no_more_until_it_drains(mesh):
    sink = Sink(room=2)
    stream = await mesh.attach(sink)
    await mesh.send(*numbered(5))
    await mesh.quiet()
    assert sink.texts == numbered(2)
    sink.room = 100
    stream.drained()
    await mesh.quiet()
    await mesh.send("5")
    assert sink.texts == numbered(6)


async def test_a_connection_that_clogs_within_a_page_gets_the_rest_of_it_later(mesh):
    await mesh.send(*numbered(PAGE))
    sink = Sink(room=3)
    stream = await mesh.attach(sink)
    assert sink.texts == numbered(3)
    sink.room = 7
    stream.drained()
    await mesh.quiet()
    assert sink.texts == numbered(7)
    sink.room = 1000
    stream.drained()
    await mesh.quiet()
    assert sink.texts == numbered(PAGE)


async def test_a_connection_that_clogs_with_its_last_message_is_not_taken_for_caught_up(mesh):
    await mesh.send("0")
    sink = Sink(room=1)
    stream = await mesh.attach(sink)
    await mesh.send("1")
    assert sink.texts == ["0"]
    sink.room = 100
    stream.drained()
    await mesh.quiet()
    assert sink.texts == ["0", "1"]


async def test_a_connection_that_was_unclogged_goes_on_with_the_next_message_too(mesh):
    sink = Sink(room=0)
    await mesh.attach(sink)
    await mesh.send("0")
    sink.room = 100
    await mesh.send("1")
    await mesh.quiet()
    assert sink.texts == ["0", "1"]


async def test_draining_a_stream_that_has_caught_up_does_nothing(mesh):
    stream = await mesh.attach(Sink())
    asked = mesh.pages
    stream.drained()
    await mesh.quiet()
    assert mesh.pages == asked


async def test_no_message_is_written_twice_on_one_connection(mesh):
    sink = Sink()
    stream = await mesh.attach(sink)
    (number,) = await mesh.send("once")
    message = await mesh.store.message(number)
    mesh.live.deliver(message)
    await mesh.store.move(BOB, [number], Event.LEASE, now=0.0)
    await mesh.store.move(BOB, [number], Event.RETURN, now=0.0)
    stream.drained()
    await mesh.quiet()
    assert sink.texts == ["once"]


async def test_a_message_that_comes_while_the_store_is_read_is_not_missed(mesh):
    entered, go_on = asyncio.Event(), asyncio.Event()
    read = mesh.store.unread

    async def slowly(owner, *, after, limit):
        page = await read(owner, after=after, limit=limit)
        entered.set()
        await go_on.wait()
        return page

    mesh.store.unread = slowly
    sink = Sink()
    stream = mesh.live.attach(BOB, sink)
    with anyio.fail_after(10):
        await entered.wait()
    stream.drained()  # a pump is running: there will be no second one
    await mesh.send("meanwhile")
    assert sink.frames == []
    go_on.set()
    await mesh.quiet()
    await mesh.send("later")
    assert sink.texts == ["meanwhile", "later"]


async def test_a_store_that_fails_delays_a_push_until_the_next_message(mesh, caplog):
    await mesh.send("0")
    mesh.store.broken.add("unread")
    sink = Sink()
    await mesh.attach(sink)
    assert "a push stream stopped" in caplog.text
    mesh.store.broken.clear()
    await mesh.send("1")
    await mesh.quiet()
    assert sink.texts == ["0", "1"]


async def test_after_a_store_that_failed_mail_comes_though_nothing_else_happens(mesh, monkeypatch):
    monkeypatch.setattr(live, "AGAIN", 0.01)
    await mesh.send("0")
    mesh.store.broken.add("unread")
    sink = Sink()
    await mesh.attach(sink)
    await until(lambda: mesh.pages > 3)
    assert sink.texts == []
    mesh.store.broken.clear()
    await until(lambda: sink.texts)
    assert sink.texts == ["0"]


async def test_a_connection_goes_on_where_an_earlier_one_ended(mesh):
    first, _ = await mesh.send("one", "two")
    sink = Sink()
    mesh.live.attach(BOB, sink, after=first)
    await mesh.quiet()
    assert sink.texts == ["two"]


async def test_the_newest_connection_wins(mesh):
    old, new = Sink(), Sink()
    first = await mesh.attach(old)
    await mesh.attach(new)
    await mesh.send("1")
    first.drained()
    await mesh.quiet()
    assert (old.texts, new.texts) == ([], ["1"])
    assert (old.ended, new.ended) == (True, False)
    assert len(mesh.live) == 1


async def test_a_connection_that_was_succeeded_while_the_store_was_read_gets_nothing(mesh):
    await mesh.send("1")
    old, new = Sink(), Sink()
    mesh.live.attach(BOB, old)
    await mesh.attach(new)
    assert (old.texts, new.texts) == ([], ["1"])


async def test_a_page_read_for_a_connection_that_was_succeeded_meanwhile_is_dropped(mesh):
    entered, go_on = asyncio.Event(), asyncio.Event()
    read = mesh.store.unread

    async def slowly(owner, *, after, limit):
        entered.set()
        await go_on.wait()
        return await read(owner, after=after, limit=limit)

    await mesh.send("1")
    mesh.store.unread = slowly
    old, new = Sink(), Sink()
    mesh.live.attach(BOB, old)
    with anyio.fail_after(10):
        await entered.wait()
    mesh.live.attach(BOB, new)
    go_on.set()
    await mesh.quiet()
    assert (old.texts, new.texts) == ([], ["1"])


async def test_a_connection_that_ends_reaches_nobody_any_more(mesh):
    sink = Sink()
    stream = await mesh.attach(sink)
    assert mesh.live.reaches(BOB)
    assert mesh.live.detach(stream)
    assert not mesh.live.reaches(BOB)
    assert not mesh.live.detach(stream)
    await mesh.send("1")
    assert sink.frames == []


async def test_a_peers_own_connection_is_told_what_has_been_read(mesh):
    sink = Sink()
    await mesh.attach(sink)
    numbers = await mesh.send("one", "two")
    mesh.live.settled(BOB, numbers)
    assert sink.frames[-1] == {"settled": numbers}


async def test_it_is_told_even_if_it_reads_slowly_but_not_after_its_end(mesh):
    sink = Sink(room=0)
    stream = await mesh.attach(sink)
    mesh.live.settled(BOB, [1])
    mesh.live.detach(stream)
    mesh.live.settled(BOB, [2])
    assert sink.frames == [{"settled": [1]}]


async def test_what_was_read_while_the_store_was_is_not_pushed_afterwards(mesh):
    (number,) = await mesh.send("read elsewhere")
    read = mesh.store.unread

    async def slowly(owner, *, after, limit):
        page = await read(owner, after=after, limit=limit)
        mesh.live.settled(BOB, [number])
        return page

    mesh.store.unread = slowly
    sink = Sink()
    await mesh.attach(sink)
    assert sink.frames == [{"settled": [number]}]


@pytest.mark.bug("B4-13")
async def test_the_end_of_a_succeeded_connection_does_not_end_the_new_one(mesh):
    first = await mesh.attach(Sink())
    sink = Sink()
    await mesh.attach(sink)
    assert not mesh.live.detach(first)
    await mesh.send("1")
    assert sink.texts == ["1"]


async def test_who_connects_again_gets_what_is_still_unread(mesh):
    first = await mesh.attach(Sink())
    numbers = await mesh.send("seen", "unseen")
    await mesh.store.move(BOB, numbers[:1], Event.SEE, now=0.0)
    await mesh.store.move(BOB, numbers[1:], Event.PUSH, now=0.0)
    mesh.live.detach(first)
    sink = Sink()
    await mesh.attach(sink)
    assert [(f["message"]["text"], f["message"]["redelivered"]) for f in sink.frames] == [
        ("unseen", 1)
    ]


async def test_a_pump_that_is_cancelled_is_no_failure(mesh, caplog):
    mesh.live.attach(BOB, Sink())
    (pump,) = mesh.live._tasks
    pump.cancel()
    await mesh.quiet()
    await asyncio.sleep(0)
    assert caplog.text == ""
