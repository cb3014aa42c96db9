"""When the same words are a repeated send, and when they are a second message."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from claude_peers.client.client import Client
from claude_peers.client.errors import RefusedError
from claude_peers.core.errors import NoBrokerError
from claude_peers.tools.member import Member
from claude_peers.tools.repeats import ForAnotherError, Repeats

pytestmark = pytest.mark.anyio

SILENT = NoBrokerError("No broker answered", "Repeat it.")
INTERRUPTED = asyncio.CancelledError()
CONFLICT = RefusedError("/send-message", 409, {"code": "dedupe_conflict"})
PREVIEW = {"ok": True, "preview": [{"id": "a"}]}
OK = {"ok": True}


class Broker(Client):
    """Answers each request with what is next; keeps their keys."""

    def __init__(self) -> None:
        super().__init__(dict)
        self.keys: list[str] = []
        self.next: dict[str, Any] | BaseException = OK
        self.before: Callable[[], None] = lambda: None

    async def call(self, operation: str, body: dict[str, Any], *, within: float = 0.0) -> Any:
        self.keys.append(body["dedupe_key"])
        self.before()
        if isinstance(self.next, BaseException):
            raise self.next
        return self.next


class Session:
    """A member, its broker, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.broker = Broker()
        self.member = Member(client=self.broker, cwd="/")
        self.member.repeats = Repeats(clock=lambda: self.now)

    async def say(self, text: str, *, to: str = "bob", gets: Any = OK) -> str:
        """Send a message; return under which key."""
        self.broker.next = gets
        with contextlib.suppress(NoBrokerError, asyncio.CancelledError):
            await self.member.send(to, text)
        return self.broker.keys[-1]

    async def publish(self, text: str, *, gets: Any = OK, **more: Any) -> str:
        """Send a broadcast; return under which key."""
        self.broker.next = gets
        with contextlib.suppress(NoBrokerError, asyncio.CancelledError):
            await self.member.publish({"topic": "status", "text": text, **more})
        return self.broker.keys[-1]


@pytest.fixture
async def session() -> Session:
    return Session()


@pytest.mark.parametrize("gets", [SILENT, INTERRUPTED])
async def test_what_is_said_again_after_something_else_is_a_second_message(session, gets):
    first = await session.say("go on", gets=gets)
    await session.say("now wait")
    assert await session.say("go on") != first


@pytest.mark.parametrize("known", [{"to_id": "b1"}, {"to_id": "x", "to_name": "b1"}])
async def test_something_else_may_go_there_under_its_other_name(session, known):
    first = await session.say("go on", to="b1", gets=INTERRUPTED)
    await session.say("now wait", to="bob", gets=OK | known)
    assert await session.say("go on", to="b1") != first


async def test_what_others_get_leaves_a_repeat_a_repeat(session):
    first = await session.say("go on", gets=SILENT)
    await session.say("now wait", to="cem")
    await session.publish("now wait")
    assert await session.say("go on") == first


async def test_a_value_that_is_published_again_after_another_is_a_second_one(session):
    first = await session.publish("building", gets=INTERRUPTED)
    await session.publish("done")
    assert await session.publish("building") != first


async def test_a_preview_sends_nothing_and_leaves_a_repeat_a_repeat(session):
    first = await session.publish("hi", confirm=6, gets=SILENT)
    await session.publish("hi", confirm=0, gets=PREVIEW)
    assert await session.publish("hi", confirm=6) == first


async def test_messages_that_went_out_side_by_side_can_all_be_repeated(session):
    first = await session.say("one", gets=SILENT)

    def the_other_fails_meanwhile() -> None:
        session.now += 10.0

    session.broker.before = the_other_fails_meanwhile
    second = await session.say("two", gets=SILENT)
    session.broker.before = lambda: None
    session.now += 1.0
    assert await session.say("one") == first
    assert await session.say("two") == second


async def test_one_that_was_under_way_when_another_was_given_up_leaves_that_one_a_repeat():
    session, gate = Session(), asyncio.Event()
    silent = asyncio.Event()

    class Slow(Broker):
        async def call(self, operation: str, body: dict[str, Any], *, within: float = 0.0) -> Any:
            self.keys.append(body["dedupe_key"])
            if body["text"] == "slow":
                await gate.wait()
            elif not silent.is_set():
                silent.set()
                raise SILENT
            return OK

    session.member.client = broker = Slow()
    slow = asyncio.ensure_future(session.member.send("bob", "slow"))
    await asyncio.sleep(0)
    session.now += 1.0
    with pytest.raises(NoBrokerError):
        await session.member.send("bob", "quick")
    gate.set()
    await slow
    await session.member.send("bob", "quick")
    assert broker.keys[1] == broker.keys[2]


@pytest.mark.parametrize(("gets", "seconds"), [(SILENT, 600.0), (INTERRUPTED, 60.0)])
async def test_it_is_a_repeat_only_for_a_while(session, gets, seconds):
    first = await session.say("go on", gets=gets)
    session.now += seconds - 1.0
    assert await session.say("go on") == first
    first = await session.say("go on", gets=gets)
    session.now += seconds
    assert await session.say("go on") != first


async def test_an_interrupted_repeat_lasts_as_long_as_the_agent_was_told(session):
    first = await session.say("go on", gets=SILENT)
    session.now += 10.0
    await session.say("go on", gets=INTERRUPTED)
    session.now += 500.0
    assert await session.say("go on") == first


async def test_no_repeat_goes_out_under_a_key_that_the_broker_has_forgotten(session):
    first = await session.say("go on", gets=SILENT)
    session.now += 599.0
    assert await session.say("go on", gets=SILENT) == first
    session.now += 1.0
    assert await session.say("go on") != first


async def test_a_repeat_for_another_holder_of_the_name_says_so_and_the_next_one_is_sent(session):
    first = await session.say("hi", gets=SILENT)
    session.broker.next = CONFLICT
    with pytest.raises(ForAnotherError, match=r"whoever was bob then.*Make the same call again"):
        await session.member.send("bob", "hi")
    assert session.broker.keys[-1] == first
    assert await session.say("hi") != first


async def test_a_conflict_of_a_first_attempt_is_the_brokers_to_tell(session):
    session.broker.next = CONFLICT
    with pytest.raises(RefusedError):
        await session.member.send("bob", "hi")
