"""Progress of a call goes to the client that asked for it, as the protocol wants it."""

import asyncio
import json

import anyio
import pytest

from claude_peers.session.generations import load
from claude_peers.session.methods import Methods
from claude_peers.session.progress import reporter
from claude_peers.session.rpc import WRITE, Dispatcher
from claude_peers.session.sdk import Face
from claude_peers.tools.registry import Progress, tool

pytestmark = pytest.mark.anyio


class World:
    """A client of one face; written lines are reported as written unless it holds them."""

    def __init__(self):
        self.received, self.held = [], []
        self.hold = False
        self.gate, self.changed = asyncio.Event(), asyncio.Event()
        self.methods = Methods([work], lambda called, given, _meta: called.run(self, **given))

    def write(self, line, done):
        self.received.append(json.loads(line))
        self.changed.set()
        if done is not None:
            self.held.append(done) if self.hold else done(True)

    async def until(self, probe):
        with anyio.fail_after(20):
            while not probe():
                self.changed.clear()
                await self.changed.wait()

    @property
    def progress(self):
        return [each for each in self.received if each.get("method") == "notifications/progress"]


@tool()
async def work(world: World, progress: Progress, steps: int = 2) -> str:
    """Work."""
    for step in range(steps):
        await progress(step + 1.5, 9.0, "working")
    await world.gate.wait()
    return "done"


@pytest.fixture(params=["own", "sdk"])
async def face(request):
    world = World()
    if request.param == "own":
        made = Dispatcher(world.methods.requests, world.methods.notifications, write=world.write)
        world.feed = made.feed
        yield world
    else:
        made = Face(world.methods, write=world.write)
        serving = asyncio.create_task(made.serve())
        world.feed = made.feed
        yield world
    await made.close()
    if request.param == "sdk":
        with anyio.fail_after(20):
            await serving


def say(world, method, key=None, params=None):
    body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    world.feed(json.dumps(body if key is None else {**body, "id": key}).encode())


async def hello(world):
    client = {"name": "x", "version": "1"}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    say(world, "initialize", "hello", params)
    await world.until(lambda: world.received)


@pytest.mark.parametrize("token", ["a", 0, 7])
async def test_a_client_that_gives_a_token_is_told(face, token):
    await hello(face)
    say(face, "tools/call", 1, {"name": "work", "_meta": {"progressToken": token}})
    await face.until(lambda: len(face.progress) == 2)
    assert face.progress[0] == {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": token, "progress": 1.5, "total": 9.0, "message": "working"},
    }
    sdk = load()
    for each in face.progress:  # the SDK takes it for what it is
        assert sdk.unparse(sdk.parse(json.dumps(each).encode()))["params"] == each["params"]
    face.gate.set()
    await face.until(lambda: [each for each in face.received if each.get("id") == 1])
    assert face.received[-1]["result"]["content"] == [{"type": "text", "text": "done"}]


@pytest.mark.parametrize("meta", [{}, {"_meta": {}}, {"_meta": None}])
async def test_a_client_that_gives_none_is_not(face, meta):
    await hello(face)
    face.gate.set()
    say(face, "tools/call", 1, {"name": "work", **meta})
    await face.until(lambda: [each for each in face.received if each.get("id") == 1])
    assert face.progress == []


async def test_other_requests_are_answered_and_a_cancelled_call_tells_no_more(face):
    await hello(face)
    say(face, "tools/call", 1, {"name": "work", "_meta": {"progressToken": 1}})
    await face.until(lambda: len(face.progress) == 2)
    say(face, "ping", 2)
    await face.until(lambda: [each for each in face.received if each.get("id") == 2])
    say(face, "notifications/cancelled", None, {"requestId": 1})
    say(face, "ping", 3)
    await face.until(lambda: [each for each in face.received if each.get("id") == 3])
    face.gate.set()
    assert len(face.progress) == 2
    assert 1 not in [each.get("id") for each in face.received]


async def test_a_client_that_does_not_read_gets_no_pile_of_it(face):
    await hello(face)
    face.hold = True
    say(
        face,
        "tools/call",
        1,
        {"name": "work", "arguments": {"steps": 50}, "_meta": {"progressToken": 1}},
    )
    face.gate.set()
    await face.until(lambda: [each for each in face.received if each.get("id") == 1])
    assert len(face.progress) == 1


async def test_the_agent_cannot_pass_for_the_client(face):
    await hello(face)
    face.gate.set()
    say(face, "tools/call", 1, {"name": "work", "arguments": {"progress": "mine"}})
    say(face, "tools/list", 2)
    await face.until(lambda: {1, 2} <= {each.get("id") for each in face.received})
    answers = {each.get("id"): each.get("result") for each in face.received}
    assert answers[1]["content"][0]["text"] == "done"
    assert list(answers[2]["tools"][0]["inputSchema"]["properties"]) == ["steps"]


@pytest.mark.parametrize("token", [None, True, [], {}, 1.0e999])
async def test_a_token_that_is_none_counts_as_none(token):
    lines = []
    WRITE.set(lambda line, _done: lines.append(line))
    await reporter({"progressToken": token})(1, 2, "x")
    assert lines == []


async def test_outside_of_a_request_it_goes_nowhere():
    async def outside():
        await reporter({"progressToken": 1})(1, 2, "x")

    await asyncio.create_task(outside())
