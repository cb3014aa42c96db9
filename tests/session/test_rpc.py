"""The dispatcher answers whatever comes, one document a line."""

import asyncio
import json
import logging

import anyio
import pytest

from claude_peers.core.errors import BadRequestError, PeerNotFoundError
from claude_peers.session import rpc
from claude_peers.session.methods import Methods
from claude_peers.session.rpc import MOST, Dispatcher, MethodError, Reply
from claude_peers.tools.registry import Shown, tool

pytestmark = pytest.mark.anyio


class Client:
    """What a client sees; `hold` keeps lines from being written until `release`."""

    def __init__(self, *, batches: bool = False) -> None:
        self.received: list = []
        self.held: list = []
        self.hold = False
        self.resumed = 0
        self.fates: list[bool] = []
        self.heard: list = []
        self.gate = asyncio.Event()
        self.dispatcher = Dispatcher(
            {
                "now": lambda params: {"got": params},
                "later": self.later,
                "reply": lambda _params: Reply({"text": "x"}, self.fates.append),
                "reply/late": lambda _params: Reply({"text": "x"}, self.fates.append, late=True),
                "reply/later": self.reply_later,
                "stubborn": self.stubborn,
                "fail": self.fail,
                "fail/later": self.fail_later,
            },
            {"heard": self.heard.append, "broken": lambda _params: 1 / 0},
            write=self.write,
            batches=lambda: batches,
            resume=self.count,
        )

    def count(self):
        self.resumed += 1

    def write(self, line, done):
        assert b"\n" not in line
        self.received.append(json.loads(line))
        if self.hold:
            self.held.append(done)
        else:
            done(True)

    def release(self, whole=True):
        held, self.held = self.held, []
        for done in held:
            done(whole)

    async def later(self, params):
        await self.gate.wait()
        return {"got": params}

    async def reply_later(self, _params):
        await self.gate.wait()
        return Reply({"text": "x"}, self.fates.append)

    async def stubborn(self, _params):
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            return Reply({"text": "x"}, self.fates.append)
        return {}

    def fail(self, params):
        raise FAILURES[params["how"]]

    async def fail_later(self, params):
        await asyncio.sleep(0)
        raise FAILURES[params["how"]]

    def say(self, method, key=None, params=None):
        self.dispatcher.feed(json.dumps(message(method, key, params)).encode())

    async def settle(self):
        await quiet(self.dispatcher)

    def answers(self):
        return {each["id"]: each.get("result", each.get("error")) for each in self.received}


FAILURES = {
    "expected": PeerNotFoundError("abc"),
    "method": MethodError(-32602, "no"),
    "bug": ZeroDivisionError("secret"),
}


async def quiet(dispatcher):
    with anyio.fail_after(10):
        while tasks := [call.task for call in dispatcher._running.values()]:
            await asyncio.wait(tasks)


def message(method, key=None, params=None):
    body = {"jsonrpc": "2.0", "method": method}
    if key is not None:
        body["id"] = key
    if params is not None:
        body["params"] = params
    return body


@pytest.fixture
async def client():
    made = Client()
    yield made
    await made.dispatcher.close()


@pytest.mark.parametrize("key", [0, -1, 7, 1.5, "", "a", "ü"])
async def test_a_request_is_answered_under_its_own_id(client, key):
    client.say("now", key, {"a": 1})
    assert client.received == [{"jsonrpc": "2.0", "id": key, "result": {"got": {"a": 1}}}]


@pytest.mark.parametrize("params", ["", ', "params": null', ', "params": {}'])
async def test_no_params_is_an_empty_object(client, params):
    client.dispatcher.feed(b'{"jsonrpc":"2.0","id":1,"method":"now"%s}\r' % params.encode())
    assert client.answers() == {1: {"got": {}}}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{oops", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"now"}', -32700),
        (b"5", -32600),
        (b"{}", -32600),
        (b'{"id":1,"method":"now"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"now"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"now"}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"now"}', -32600),
        (b'{"jsonrpc":"2.0","id":1e999,"method":"now"}', -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"now"}]', -32600),
        (b"[]", -32600),
    ],
)
async def test_a_line_that_is_no_message_is_refused_without_id(client, line, code):
    client.dispatcher.feed(line)
    (answer,) = client.received
    assert answer["id"] is None
    assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" \t\r",
        b'{"jsonrpc":"2.0","id":5,"result":{}}',
        b'{"jsonrpc":"2.0","id":5,"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","method":"unknown"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":null}}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}',
    ],
)
async def test_what_needs_no_answer_gets_none(client, line):
    client.dispatcher.feed(line)
    assert client.received == []


async def test_an_unknown_method_and_params_of_the_wrong_kind_are_refused(client):
    client.say("unknown", 1)
    client.say("now", 2, [1])
    client.say("now", 3, 5)
    assert [each["error"]["code"] for each in client.received] == [-32601, -32602, -32602]


async def test_notifications_are_heard_and_a_listener_that_fails_harms_nobody(client, caplog):
    client.say("heard", None, {"a": 1})
    client.say("heard", None, [1])
    client.say("broken")
    client.say("now", 1)
    assert client.heard == [{"a": 1}, {}]
    assert client.answers() == {1: {"got": {}}}
    assert "broken" in caplog.text


@pytest.mark.parametrize("method", ["fail", "fail/later"])
async def test_expected_failures_speak_and_bugs_do_not(client, method, caplog):
    for key, how in enumerate(FAILURES):
        client.say(method, key, {"how": how})
    await client.settle()
    answers = client.answers()
    assert answers[0] == {"code": -32602, "message": str(FAILURES["expected"])}
    assert answers[1] == {"code": -32602, "message": "no"}
    assert answers[2] == {"code": -32603, "message": "Internal error"}
    assert "secret" in caplog.text


async def test_a_call_that_waits_holds_up_nobody(client):
    client.say("later", 1)
    client.say("now", 2)
    assert [*client.answers()] == [2]
    client.gate.set()
    await client.settle()
    assert [*client.answers()] == [2, 1]


async def test_an_id_that_is_still_under_way_is_refused_and_free_afterwards(client):
    client.say("later", 1)
    client.say("now", 1)
    assert client.answers()[1]["code"] == -32600
    client.gate.set()
    await client.settle()
    client.say("now", 1)
    assert [each.get("result") for each in client.received[1:]] == [{"got": {}}] * 2


@pytest.mark.parametrize(("key", "spelling"), [(1, 1), ("a", "a"), (1, "1"), (1.5, 1.5)])
async def test_a_cancelled_call_stops_without_an_answer(client, key, spelling):
    client.say("later", key)
    await asyncio.sleep(0)
    client.say("notifications/cancelled", None, {"requestId": spelling})
    await client.settle()
    assert client.received == []
    client.say("now", key)
    assert [*client.answers()] == [key]


async def test_a_call_cancelled_before_it_began_gets_no_answer_either(client):
    client.say("later", 1)
    client.say("notifications/cancelled", None, {"requestId": 1})
    await client.settle()
    assert client.received == []
    client.say("now", 1)
    assert [*client.answers()] == [1]


async def test_a_call_that_cannot_be_stopped_is_not_answered_and_shows_nothing(client):
    client.say("stubborn", 1)
    await asyncio.sleep(0)
    client.say("notifications/cancelled", None, {"requestId": 1})
    await client.settle()
    assert client.received == []
    assert client.fates == [False]


async def test_a_call_that_waited_for_something_cancelled_is_answered(client):
    async def broken(_params):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    client.dispatcher._methods["broken"] = broken
    client.say("broken", 1)
    await client.settle()
    assert client.answers()[1]["code"] == -32603


@pytest.mark.parametrize("method", ["reply", "reply/later"])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_reply_learns_whether_it_was_written(client, method, whole):
    client.hold = True
    client.gate.set()
    client.say(method, 1)
    await client.settle()
    assert client.fates == []
    client.release(whole)
    assert client.fates == [whole]


async def test_a_call_cancelled_while_its_answer_waits_counts_as_not_shown(client):
    client.hold = True
    client.say("reply", 1)
    client.say("notifications/cancelled", None, {"requestId": 1})
    client.release()
    assert client.fates == [False]


async def test_a_late_cancellation_changes_nothing(client):
    client.say("reply", 1)
    client.say("notifications/cancelled", None, {"requestId": 1})
    assert client.fates == [True]


@pytest.mark.parametrize(("whole", "fates"), [(True, [True, False]), (False, [False])])
async def test_a_reply_that_asks_for_it_learns_once_of_a_late_cancellation(client, whole, fates):
    client.hold = True
    client.say("reply/late", 1)
    client.release(whole)
    for spelling in ("1", 1):
        client.say("notifications/cancelled", None, {"requestId": spelling})
    assert client.fates == fates


async def test_a_reused_id_keeps_the_fates_apart(client):
    client.hold = True
    client.say("reply", 1)
    client.say("reply", 1)
    client.say("notifications/cancelled", None, {"requestId": 1})
    client.release()
    assert client.fates == [True, False]


async def test_a_batch_is_answered_as_one_array():
    client = Client(batches=True)
    batch = [
        message("later", 1),
        message("now", 2),
        message("heard"),
        message("reply", 3),
        5,
        message("unknown", 4),
        message("later", 5),
    ]
    client.dispatcher.feed(json.dumps(batch).encode())
    await asyncio.sleep(0)
    client.say("notifications/cancelled", None, {"requestId": 5})
    assert client.received == []
    client.gate.set()
    await client.settle()
    ((*answers,),) = client.received
    assert {each["id"] for each in answers} == {1, 2, 3, 4, None}
    assert client.fates == [True]
    assert client.heard == [{}]


async def test_a_batch_that_needs_no_answer_gets_none():
    client = Client(batches=True)
    client.dispatcher.feed(json.dumps([message("heard"), message("later", 1)]).encode())
    client.say("notifications/cancelled", None, {"requestId": 1})
    await client.settle()
    assert client.received == []
    client.dispatcher.feed(b"[]")
    assert client.received[0]["error"]["code"] == -32600


async def test_too_many_calls_pause_the_reader_until_one_ends(client):
    for key in range(MOST):
        assert not client.dispatcher.paused
        client.say("later", key)
    assert client.dispatcher.paused
    assert client.resumed == 0
    client.gate.set()
    await client.settle()
    assert not client.dispatcher.paused
    assert client.resumed


async def test_answers_nobody_reads_pause_the_reader(client):
    client.hold = True
    for key in range(MOST):
        client.say("now", key)
    assert client.dispatcher.paused
    client.release()
    assert not client.dispatcher.paused
    assert client.resumed == 1


async def test_closing_lets_calls_end_within_their_grace(client):
    client.say("later", 1)
    asyncio.get_running_loop().call_soon(client.gate.set)
    await client.dispatcher.close(grace=10)
    assert [*client.answers()] == [1]


async def test_closing_stops_what_does_not_end(client):
    client.say("later", 1)
    await client.dispatcher.close(grace=0.001)
    assert client.received == []
    assert not client.dispatcher._running


def test_a_line_too_long_to_read_is_answered_with_the_remedy():
    unknown, known = rpc.oversized(None), rpc.oversized("a")

    assert (unknown["id"], unknown["error"]["code"]) == (None, -32700)
    assert (known["id"], known["error"]["code"]) == ("a", -32602)
    assert "Put the long part in a file" in known["error"]["message"]


# What the methods themselves add; that both faces agree on them is tests/session/test_oracle.py.


@tool(also=("post",))
async def say(peer: object, text: str) -> str | Shown:
    """Say something."""
    return Shown(text, (5, 6)) if text == "mail" else text


class Session:
    def __init__(self):
        self.events, self.shown, self.calls, self.lines = [], [], [], []
        self.methods = Methods(
            [say],
            self.call,
            on_event=self.events.append,
            on_shown=lambda shown, whole: self.shown.append((shown.message_ids, whole)),
        )
        self.dispatcher = Dispatcher(
            self.methods.requests,
            self.methods.notifications,
            write=self.write,
            batches=lambda: self.methods.batches,
        )

    def write(self, line, done):
        self.lines.append(json.loads(line))
        done(True)

    async def call(self, called, given, meta):
        self.calls.append((called.name, given, meta))
        if given["text"] == "bad":
            raise BadRequestError("That is bad")
        return await called.run(None, **given)

    async def ask(self, method, params=None):
        self.dispatcher.feed(json.dumps(message(method, 1, params)).encode())
        await quiet(self.dispatcher)
        return self.lines[-1].get("result", self.lines[-1].get("error"))


async def test_a_tool_gets_its_arguments_and_the_clients_meta():
    session = Session()
    params = {"name": "post", "arguments": {"text": 5}, "_meta": {"claudecode/toolUseId": "t"}}
    assert await session.ask("tools/call", params) == {"content": [{"type": "text", "text": "5"}]}
    assert session.calls == [("say", {"text": "5"}, {"claudecode/toolUseId": "t"})]
    assert session.events == ["tools/call"]


async def test_messages_count_as_shown_once_the_line_is_written():
    session = Session()
    await session.ask("tools/call", {"name": "say", "arguments": {"text": "mail"}, "_meta": 5})
    assert session.shown == [((5, 6), True)]


async def test_an_expected_failure_is_text_for_the_model():
    session = Session()
    result = await session.ask("tools/call", {"name": "say", "arguments": {"text": "bad"}})
    assert result["isError"] is True
    assert result["content"][0]["text"].startswith("That is bad. ")
    result = await session.ask("tools/call", {"name": "say"})
    assert result["isError"] is True
    assert "`text`" in result["content"][0]["text"]


async def test_unknown_tools_and_prompts_are_invalid_params():
    session = Session()
    for method in ("tools/call", "prompts/get"):
        error = await session.ask(method, {"name": "nothing"})
        assert (error["code"], error["message"][:8]) == (-32602, "Unknown ")
    assert session.events == []


async def test_a_handshake_answered_elsewhere_is_taken_note_of():
    session = Session()
    assert session.methods.version is None
    session.methods.greet({"protocolVersion": "2025-03-26", "clientInfo": {"name": "x"}})
    assert session.methods.batches
    assert session.methods.client == {"name": "x"}
    session.methods.greet({"clientInfo": 5})
    assert not session.methods.batches
    assert session.methods.client == {}


async def test_prompts_name_the_tools_to_call():
    session = Session()
    listed = await session.ask("prompts/list")
    assert [each["name"] for each in listed["prompts"]] == ["peers", "inbox"]
    for name, called in (("peers", "list_peers"), ("inbox", "check_messages")):
        result = await session.ask("prompts/get", {"name": name})
        (only,) = result["messages"]
        assert only["role"] == "user"
        assert called in only["content"]["text"]
    assert session.events == ["prompts/list"]


async def test_failures_are_logged_where_they_are_handled(caplog):
    with caplog.at_level(logging.ERROR):
        assert rpc.failure(RuntimeError("detail"))["message"] == "Internal error"
    assert "detail" in caplog.text
