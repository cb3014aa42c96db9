"""The client's socket: one frame a line, at a pace, and every line unlike the others."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio.lowlevel
import pytest
from support.loop import until

from claude_peers.session.routes import inbox
from claude_peers.session.routes.inbox import Inbox, Pace
from claude_peers.session.routes.route import Route

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no such sockets"),
]


class Client:
    """What stands for the client: it reads each connection to its end and answers nothing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.connections: list[list[dict]] = []
        self.faults: list[bytes] = []

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._take, self.path)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _take(self, reader, writer) -> None:
        *lines, rest = (await reader.read()).split(b"\n")
        writer.close()
        if rest:
            self.faults.append(rest)
        self.connections.append([json.loads(line) for line in lines])

    async def texts(self, count: int) -> list[str]:
        await until(lambda: len(self.connections) >= count)
        return [lines[-1]["message"]["content"] for lines in self.connections]


class Time:
    """A clock that goes on only when somebody is told to wait, or is held while he does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.gate.wait()
        self.now += seconds


@pytest.fixture
def path(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)  # a socket's path is short, a scratch folder's is not
    return "inbox.sock"


@pytest.fixture
async def client(path):
    async with Client(path) as client:
        yield client


@pytest.fixture
async def time():
    return Time()


@pytest.fixture
def route(path, time):
    return Inbox(path, "the token", clock=time, sleep=time.sleep)


def body(text: str) -> str:
    """Return a line's text without the mark at its end."""
    return text.rpartition("\n\n[delivery ")[0]


def test_it_is_a_route(path):
    checked: Route = Inbox(path)

    assert checked.name == "inbox"


async def test_a_text_goes_as_one_frame_behind_the_token(route, client):
    assert route.available
    assert await route.push("<channel>ä\n2</channel>")

    await client.texts(1)
    auth, user = client.connections[0]
    assert auth == {"type": "auth", "token": "the token"}
    content = user["message"].pop("content")
    assert user == {"type": "user", "priority": "next", "message": {"role": "user"}}
    assert body(content) == "<channel>ä\n2</channel>"
    assert client.faults == []


async def test_without_a_token_there_is_only_the_frame(client, path):
    assert await Inbox(path).push("hello")

    assert body((await client.texts(1))[0]) == "hello"
    assert len(client.connections[0]) == 1


async def test_the_same_text_twice_makes_two_different_lines(route, client, path):
    assert await route.push("again")
    assert await route.push("again")
    assert await Inbox(path).push("again")

    texts = await client.texts(3)
    assert {body(text) for text in texts} == {"again"}
    assert len(set(texts)) == 3


async def test_five_lines_go_at_once_and_then_one_a_second(route, client, time):
    for number in range(7):
        assert await route.push(str(number))

    assert time.waits == [1.0, 1.0]
    assert [body(text) for text in await client.texts(7)] == [str(n) for n in range(7)]


async def spent(route, time) -> None:
    for _ in range(inbox.BURST):
        assert await route.push("quick")
    time.gate.clear()


async def test_texts_that_wait_travel_together_in_order(route, client, time):
    await spent(route, time)
    pushes = [asyncio.create_task(route.push(f"text {number}")) for number in range(40)]
    await until(lambda: time.waits)
    pushes.append(asyncio.create_task(route.push("text 40")))
    await anyio.lowlevel.checkpoint()

    time.gate.set()

    assert all(await asyncio.gather(*pushes))
    texts = await client.texts(inbox.BURST + 1)
    assert body(texts[-1]) == "\n\n".join(f"text {number}" for number in range(41))
    assert len(texts) == inbox.BURST + 1
    assert time.waits == [1.0]


async def test_more_than_a_line_takes_goes_in_the_next(route, client, time):
    await spent(route, time)
    large = "x" * (inbox.MOST - 10)
    pushes = [asyncio.create_task(route.push(text)) for text in (large, "y" * 20, "z")]
    await until(lambda: time.waits)

    time.gate.set()

    assert all(await asyncio.gather(*pushes))
    texts = await client.texts(inbox.BURST + 2)
    assert [body(text) for text in texts[-2:]] == [large, "y" * 20 + "\n\nz"]


async def test_whoever_joined_a_push_that_is_cancelled_is_told(route, client, time):
    await spent(route, time)
    first = asyncio.create_task(route.push("first"))
    await until(lambda: time.waits)
    second = asyncio.create_task(route.push("second"))
    await anyio.lowlevel.checkpoint()

    first.cancel()

    assert not await second
    time.gate.set()
    assert await route.push("third")
    assert body((await client.texts(inbox.BURST + 1))[-1]) == "third"


async def test_whoever_joined_and_is_cancelled_keeps_nobody_from_going(route, client, time):
    await spent(route, time)
    first = asyncio.create_task(route.push("first"))
    await until(lambda: time.waits)
    second = asyncio.create_task(route.push("second"))
    await anyio.lowlevel.checkpoint()

    second.cancel()
    time.gate.set()

    assert await first


async def test_a_closed_route_pushes_nothing_not_even_what_waits(route, client, time):
    await spent(route, time)
    waiting = asyncio.create_task(route.push("late"))
    await until(lambda: time.waits)

    route.close()
    route.close()
    time.gate.set()

    assert not await waiting
    assert not route.available
    assert not await route.push("later")
    assert len(await client.texts(inbox.BURST)) == inbox.BURST


async def test_without_a_socket_the_route_is_not_available(route, path, tmp_path):
    assert not route.available
    assert not await route.push("hello")
    assert not Inbox("").available
    (tmp_path / "file").write_text("")
    assert not Inbox(str(tmp_path / "file")).available


async def test_another_users_socket_is_not_ours(route, client, monkeypatch):
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)

    assert not route.available


async def test_a_link_to_a_socket_is_not_followed(client, path, tmp_path):
    (tmp_path / "link").symlink_to(path)

    assert not Inbox("link").available


async def test_where_there_are_no_such_sockets_the_route_is_never_available(client, path):
    assert not Inbox(path, sockets=False).available


async def test_a_socket_that_refuses_is_not_tried_again_until_there_is_a_new_one(
    route, path, tmp_path
):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(path)
    assert route.available

    assert not await route.push("nobody listens")
    assert not route.available

    (tmp_path / path).unlink()
    async with Client(path) as client:
        assert route.available
        assert await route.push("hello again")
        assert body((await client.texts(1))[0]) == "hello again"


@contextmanager
def deaf(path: str) -> Iterator[None]:
    """Listen and never read."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        yield


async def test_a_client_that_does_not_read_costs_a_bounded_wait_and_no_more(path):
    route = Inbox(path, patience=0)
    with deaf(path):
        assert not await route.push("x" * 8_000_000)

        assert route.available, "it may have been busy"


def test_the_pace_allows_a_burst_after_each_silence():
    pace = Pace(burst=3, every=2.0)
    waits = []
    for now in (10, 10, 10, 10, 12, 100, 100, 100, 100):
        waits.append(pace.wait(now))
        if not waits[-1]:
            pace.spend(now)

    assert waits == [0, 0, 0, 2, 0, 0, 0, 0, 2]
