"""Messages that are older than what was pushed: held ones, and inherited ones."""

import asyncio

import anyio
import pytest
from support.brokers import NO_LIMITS, FlakyStore, draft

from claude_peers.core.delivery import Event
from claude_peers.core.limits import PAGE
from claude_peers.core.models import PeerId
from claude_peers.transports.live import LiveConnections

pytestmark = pytest.mark.anyio

BOB, CID = PeerId("bob"), PeerId("cid")


class Sink:
    def __init__(self, room: int = 10_000) -> None:
        self.room = room
        self.frames: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def hang_up(self) -> None:
        self.room = 0

    @property
    def clogged(self) -> bool:
        return len(self.frames) >= self.room

    @property
    def texts(self) -> list[str]:
        return [frame.decode().partition('"text":"')[2].partition('"')[0] for frame in self.frames]


class Mesh:
    def __init__(self) -> None:
        self.store = FlakyStore()
        self.live = LiveConnections(self.store, lambda _: None)

    async def send(self, *texts: str, held: bool = False) -> list:
        found = []
        for text in texts:
            written = draft(text, held=held, sender="muted" if held else "ann")
            found.append((await self.store.accept(written, NO_LIMITS, now=0.0)).message)
            if not held:
                self.live.deliver(found[-1])
        return found

    async def admit(self) -> None:
        for message in await self.store.admit(BOB, "muted", now=0.0):
            self.live.deliver(message)
        await self.quiet()

    async def attach(self, sink: Sink, **fields):
        stream = self.live.attach(BOB, sink, **fields)
        await self.quiet()
        return stream

    async def quiet(self) -> None:
        while waiting := list(self.live._tasks):
            await asyncio.wait(waiting)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


async def test_what_was_held_is_pushed_once_it_is_admitted_though_newer_mail_was(mesh):
    sink = Sink()
    await mesh.attach(sink)
    await mesh.send("h1", "h2", held=True)
    await mesh.send("new")
    await mesh.admit()
    await mesh.send("newer")
    assert sink.texts == ["new", "h1", "h2", "newer"]


async def test_what_was_held_is_pushed_to_a_clogged_connection_when_it_drains(mesh):
    sink = Sink(room=2)
    stream = await mesh.attach(sink)
    held = await mesh.send("h1", "h2", "h3", held=True)
    await mesh.send("a", "b", "c")
    await mesh.admit()
    assert sink.texts == ["a", "b"]
    await mesh.store.move(BOB, [held[1].id], Event.SEE, now=0.0)
    await mesh.store.readdress(BOB, CID, "nobody", now=0.0)
    sink.room = 3
    stream.drained()
    await mesh.quiet()
    assert sink.texts == ["a", "b", "h1"]
    sink.room = 100
    stream.drained()
    await mesh.quiet()
    await mesh.send("d")
    assert sink.texts == ["a", "b", "h1", "h3", "c", "d"]


async def test_what_went_to_another_or_away_meanwhile_is_not_pushed(mesh):
    sink = Sink(room=1)
    stream = await mesh.attach(sink)
    named, purged = [
        (
            await mesh.store.accept(
                draft(t, to_name="n", held=True, sender="muted"), NO_LIMITS, now=0.0
            )
        ).message
        for t in ("named", "purged")
    ]
    await mesh.send("a")
    await mesh.admit()
    await mesh.store.readdress(BOB, CID, "n", now=0.0)
    del mesh.store._mail[purged.id]
    sink.room = 100
    stream.drained()
    await mesh.quiet()
    assert sink.texts == ["a"]
    assert (await mesh.store.message(named.id)).to_id == CID


async def test_a_message_that_the_pump_has_read_is_not_written_again_when_it_is_offered(mesh):
    sink = Sink()
    held = await mesh.send("h", held=True)
    (admitted,) = await mesh.store.admit(BOB, "muted", now=0.0)
    await mesh.send("new")
    await mesh.attach(sink)
    mesh.live.deliver(admitted)
    await mesh.quiet()
    assert sink.texts == ["h", "new"]
    assert admitted.id == held[0].id


async def test_what_is_admitted_while_a_page_is_read_that_does_not_show_it_is_not_missed(
    mesh, monkeypatch
):
    await mesh.send("h", held=True)
    await mesh.send("old")
    entered, go_on = asyncio.Event(), asyncio.Event()
    read = mesh.store.unread

    async def slowly(*args, **named):
        page = await read(*args, **named)
        entered.set()
        await go_on.wait()
        return page

    monkeypatch.setattr(mesh.store, "unread", slowly)
    sink = Sink()
    mesh.live.attach(BOB, sink)
    with anyio.fail_after(10):
        await entered.wait()
        (admitted,) = await mesh.store.admit(BOB, "muted", now=0.0)
        mesh.live.deliver(admitted)
        go_on.set()
        await mesh.quiet()
    await mesh.send("new")
    assert sink.texts == ["old", "h", "new"]


async def test_late_mail_of_a_connection_that_was_succeeded_is_left_to_its_successor(
    mesh, monkeypatch
):
    old, new = Sink(room=1), Sink()
    stream = await mesh.attach(old)
    await mesh.send("h", held=True)
    await mesh.send("a")
    await mesh.admit()
    entered, go_on = asyncio.Event(), asyncio.Event()
    look = mesh.store.message

    async def slowly(number):
        entered.set()
        await go_on.wait()
        return await look(number)

    monkeypatch.setattr(mesh.store, "message", slowly)
    old.room = 100
    stream.drained()
    with anyio.fail_after(10):
        await entered.wait()
        mesh.live.attach(BOB, new)
        go_on.set()
        await mesh.quiet()
    assert (old.texts, new.texts) == (["a"], ["h", "a"])


async def test_a_store_that_fails_delays_late_mail(mesh, monkeypatch, caplog):
    sink = Sink(room=1)
    stream = await mesh.attach(sink)
    await mesh.send("h", held=True)
    await mesh.send("a")
    await mesh.admit()
    with monkeypatch.context() as broken:
        broken.setattr(mesh.store, "message", None)
        sink.room = 100
        stream.drained()
        await mesh.quiet()
        await asyncio.sleep(0)
    assert "a push stream stopped" in caplog.text
    await mesh.send("b")
    await mesh.quiet()
    assert sink.texts == ["a", "h", "b"]


async def test_a_clogged_connection_remembers_nothing_of_what_it_will_read_anyway(mesh):
    sink = Sink(room=1)
    stream = await mesh.attach(sink)
    await mesh.send(*(str(n) for n in range(3 * PAGE)))
    assert (len(stream._offered), len(stream._late), len(sink.texts)) == (0, 0, 1)


# Companions


class Companion:
    def __init__(self) -> None:
        self.hung_up = 0

    def hang_up(self) -> None:
        self.hung_up += 1


async def test_second_servers_are_hung_up_on_once_and_get_no_push(mesh):
    one, two, other = Companion(), Companion(), Companion()
    for peer_id, each in ((BOB, one), (BOB, two), (CID, other)):
        mesh.live.accompany(peer_id, each)
    assert not mesh.live.reaches(BOB)
    mesh.live.part(BOB, two)
    mesh.live.dismiss(BOB)
    mesh.live.dismiss(BOB)
    assert (one.hung_up, two.hung_up, other.hung_up) == (1, 0, 0)
    mesh.live.part(BOB, one)
    mesh.live.part(CID, other)
    assert mesh.live._companions == {}


async def test_a_second_server_that_parts_leaves_the_others(mesh):
    one, two = Companion(), Companion()
    mesh.live.accompany(BOB, one)
    mesh.live.accompany(BOB, two)
    mesh.live.part(BOB, one)
    mesh.live.dismiss(BOB)
    assert (one.hung_up, two.hung_up) == (0, 1)
