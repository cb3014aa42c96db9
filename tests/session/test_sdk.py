"""What the second face adds to the SDK; what it answers is compared in test_oracle.py."""

import asyncio
import gc
import json
import sys

import anyio
import pytest

from claude_peers.core.errors import SettingsError
from claude_peers.session import generations
from claude_peers.session.methods import Methods
from claude_peers.session.rpc import MOST
from claude_peers.session.sdk import Face
from claude_peers.tools.registry import Shown, tool

pytestmark = pytest.mark.anyio


@tool()
async def show(session: "Session") -> Shown:
    """Show a message, when it may."""
    session.waiting.set()
    try:
        await session.gate.wait()
    except asyncio.CancelledError:
        if not session.stubborn:
            raise
    return Shown("text", (7,))


@tool(listed=False)
async def hook(session: "Session") -> Shown:
    """Show a message at once."""
    return Shown("text", (8,))


class Session:
    """A client of the second face; `hold` keeps lines from being written."""

    def __init__(self):
        self.received, self.held, self.shown = [], [], []
        self.hold = self.stubborn = False
        self.resumed = 0
        self.gate, self.waiting, self.changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.methods = Methods(
            [show, hook],
            lambda called, given, _meta: called.run(self, **given),
            on_shown=lambda shown, whole: self.shown.append((shown.message_ids, whole)),
        )
        self.face = Face(self.methods, write=self.write, resume=self.count)
        self.serving = asyncio.create_task(self.face.serve())

    def count(self):
        self.resumed += 1
        self.changed.set()

    def write(self, line, done):
        self.received.append(json.loads(line))
        self.changed.set()
        if done is not None and self.hold:
            self.held.append(done)
        elif done is not None:
            done(True)

    def say(self, method, key=None, params=None):
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        self.face.feed(json.dumps(body if key is None else {**body, "id": key}).encode())

    async def until(self, probe):
        with anyio.fail_after(20):
            while not probe():
                self.changed.clear()
                await self.changed.wait()

    async def answered(self, key):
        await self.until(lambda: key in [each.get("id") for each in self.received])


@pytest.fixture
async def session():
    made = Session()
    client = {"name": "x", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    made.say("initialize", "hello", hello)
    await made.answered("hello")
    yield made
    await made.face.close()
    with anyio.fail_after(20):
        await made.serving


async def test_a_client_that_came_before_the_sdk_is_answered(session):
    assert session.methods.client == {"name": "x", "version": "1"}
    assert session.methods.version == "2025-06-18"


async def test_messages_count_as_shown_once_the_line_is_written(session):
    session.gate.set()
    session.hold = True
    session.say("tools/call", 1, {"name": "show"})
    await session.answered(1)
    assert session.shown == []
    session.held.pop()(True)
    assert session.shown == [((7,), True)]


async def test_a_cancellation_before_the_line_is_written_wins(session):
    session.gate.set()
    session.hold = True
    session.say("tools/call", 1, {"name": "show"})
    await session.answered(1)
    session.say("notifications/cancelled", None, {"requestId": 1})
    session.say("ping", 2)
    await session.answered(2)
    for done in session.held:
        done(True)
    assert session.shown == [((7,), False)]


@pytest.mark.parametrize("spelling", [1, "1"])
async def test_a_cancellation_after_the_line_was_written_takes_back_a_hooks_answer(
    session, spelling
):
    session.say("tools/call", 1, {"name": "hook"})
    await session.answered(1)
    for _ in range(2):
        session.say("notifications/cancelled", None, {"requestId": spelling})
    session.say("ping", 2)
    await session.answered(2)
    assert session.shown == [((8,), True), ((8,), False)]


async def test_a_cancellation_after_the_line_was_written_changes_nothing_of_a_tools_result(session):
    session.gate.set()
    session.say("tools/call", 1, {"name": "show"})
    await session.answered(1)
    session.say("notifications/cancelled", None, {"requestId": 1})
    session.say("ping", 2)
    await session.answered(2)
    assert session.shown == [((7,), True)]


async def test_a_call_that_cannot_be_stopped_is_not_answered_and_shows_nothing(session):
    session.stubborn = True
    session.say("tools/call", 1, {"name": "show"})
    with anyio.fail_after(20):
        await session.waiting.wait()
    session.say("notifications/cancelled", None, {"requestId": 1})
    await session.until(lambda: session.shown)
    session.say("ping", 2)
    await session.answered(2)
    assert session.shown == [((7,), False)]
    assert 1 not in [each.get("id") for each in session.received]


async def test_too_many_requests_pause_the_reader(session):
    for key in range(MOST):
        assert not session.face.paused
        session.say("tools/call", key, {"name": "show"})
    assert session.face.paused
    session.gate.set()
    await session.until(lambda: not session.face.paused)
    assert session.resumed


async def test_closing_lets_calls_end_within_their_grace(session):
    session.say("tools/call", 1, {"name": "show"})
    with anyio.fail_after(20):
        await session.waiting.wait()
    asyncio.get_running_loop().call_soon(session.gate.set)
    await session.face.close(grace=20)
    await session.serving
    assert [each["result"]["content"] for each in session.received if each.get("id") == 1]


async def test_what_is_not_written_at_the_end_was_not_shown(session):
    session.gate.set()
    session.hold = True
    session.say("tools/call", 1, {"name": "show"})
    await session.answered(1)
    await session.face.close(grace=0.001)
    await session.serving
    assert session.shown == [((7,), False)]


async def test_a_missing_sdk_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp.types", None)
    face = Face(Methods([], show.run), write=lambda _line, _done: None)
    with pytest.raises(SettingsError, match="Install"):
        await face.serve()


@pytest.mark.parametrize("collecting", [True, False])
def test_loading_the_sdk_leaves_garbage_collection_as_it_was(collecting):
    try:
        if not collecting:
            gc.disable()
        generations.load()
        assert gc.isenabled() is collecting
    finally:
        gc.enable()
