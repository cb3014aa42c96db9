"""`/mcp`: the tools over HTTP, by the official SDK, for peers known by their token alone."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.inproc import BOUND, LiveWire, Running, Wire, head, post, running
from support.waiting import eventually

from claude_peers.core.errors import SettingsError
from claude_peers.core.limits import BODY
from claude_peers.core.models import Presence
from claude_peers.gateway import framing
from claude_peers.gateway.mcp import Endpoint, Mcp, Visit
from claude_peers.session import generations, hosted
from claude_peers.tools import TOOLS, waiting

ACCEPT = "application/json, text/event-stream"


class Loader:
    """Loads what answers when it may; tells on which threads it was asked to."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.begun, self.may = threading.Event(), threading.Event()
        self.may.set()
        self.error: Exception | None = None

    def __call__(self) -> Endpoint:
        self.threads.append(threading.get_ident())
        self.begun.set()
        assert self.may.wait(BOUND)
        if self.error is not None:
            raise self.error
        return hosted.load()


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def broker(loader: Loader) -> Iterator[Running]:
    with running() as serving:
        serving.app.mcp = Mcp(serving.app, load=loader)
        yield serving


class Agent:
    """An MCP client with the token of a peer, over one connection."""

    def __init__(self, broker: Running, name: str, **registration: Any) -> None:
        self.wire = Wire(broker.port)
        joined = self.wire.ask("/register", {"name": name, "cwd": "/w", **registration})[1]
        self.id, self.token = str(joined["id"]), str(joined["token"])
        self._number = 0

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": ACCEPT}

    def send(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> None:
        self._number += 1
        body = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}}
        self.wire.send(post(self.wire.port, "/mcp", body, **{**self.credentials, **headers}))

    def ask(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> Any:
        """Return the result of a method."""
        self.send(method, params, **headers)
        return self.result()

    def result(self) -> Any:
        status, headers, body = self.wire.answer()
        assert (status, headers["content-type"]) == (200, "application/json"), body
        return json.loads(body)["result"]

    def begin(self, tool: str, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments})

    def call(self, tool: str, **arguments: Any) -> str:
        """Return the text of a tool's result."""
        self.begin(tool, **arguments)
        return str(self.result()["content"][0]["text"])


@pytest.fixture
def join(broker: Running) -> Iterator[Callable[..., Agent]]:
    """Return what makes an agent."""
    agents: list[Agent] = []

    def make(name: str, **registration: Any) -> Agent:
        agents.append(Agent(broker, name, **registration))
        return agents[-1]

    yield make
    for agent in agents:
        agent.wire.socket.close()


@pytest.fixture
def alice(join: Callable[..., Agent]) -> Agent:
    return join("alice")


@pytest.fixture
def bob(join: Callable[..., Agent]) -> Agent:
    return join("bob")


def states(broker: Running) -> dict[str, int]:
    ledger = broker.run(broker.store.ledger())
    assert ledger.balanced
    return {str(state): count for state, count in ledger.states.items() if count}


def settled(broker: Running, **expected: int) -> None:
    eventually(lambda: states(broker) == expected, what=f"the messages' states {expected}")


# Who may


def refusal(broker: Running, raw: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    with Wire(broker.port) as wire:
        wire.send(raw)
        status, headers, body = wire.answer()
        return status, headers, json.loads(body)


@pytest.mark.parametrize(
    ("given", "challenge"),
    [
        ({}, 'Bearer realm="claude-peers"'),
        ({"Authorization": "Basic eDp5"}, 'Bearer realm="claude-peers"'),
        (
            {"Authorization": f"Bearer {'0' * 64}"},
            'Bearer realm="claude-peers", error="invalid_token"',
        ),
    ],
)
def test_without_a_peers_token_it_is_closed(
    broker: Running, loader: Loader, given: dict[str, str], challenge: str
) -> None:
    status, headers, told = refusal(broker, post(broker.port, "/mcp", {}, **given))
    assert (status, headers["www-authenticate"]) == (401, challenge)
    assert "claude-peers token" in told["remedy"]
    assert not loader.threads


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_no_stream_to_open_and_no_session_to_end(
    broker: Running, alice: Agent, method: str
) -> None:
    raw = head(broker.port, method, "/mcp", **alice.credentials)
    status, headers, told = refusal(broker, raw)
    assert (status, headers["allow"], told["code"]) == (405, "POST", "method_not_allowed")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"Host": "evil.example.com"}, (421, "wrong_host")),
        ({"Origin": "http://evil.example.com"}, (403, "from_a_browser")),
        ({"Origin": "https://127.0.0.1:{port}"}, (403, "from_a_browser")),
        ({"Origin": "null"}, (403, "from_a_browser")),
        ({"Sec_Fetch_Site": "cross-site"}, (403, "from_a_browser")),
        ({"X_Forwarded_For": "192.0.2.1"}, (401, "proxied")),
        ({"Content_Type": "text/plain"}, (415, "not_json")),
        ({"Content_Length": str(BODY + 1)}, (413, "body_too_large")),
    ],
)
def test_a_token_does_not_open_it_to_what_is_refused_elsewhere(
    broker: Running, alice: Agent, given: dict[str, str], expected: tuple[int, str]
) -> None:
    given = {name: value.format(port=broker.port) for name, value in given.items()}
    raw = post(broker.port, "/mcp", b"", **{**alice.credentials, **given})
    status, _, told = refusal(broker, raw)
    assert (status, told["code"]) == expected


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_our_own_address_is_an_origin_here_and_nowhere_else(
    broker: Running, alice: Agent, name: str
) -> None:
    origin = f"http://{name}:{broker.port}"
    assert alice.ask("ping", Origin=origin) == {}
    raw = post(broker.port, "/list-peers", {}, **alice.credentials, Origin=origin)
    assert refusal(broker, raw)[0] == 403


def test_a_replaced_token_is_void_and_the_mailbox_stays(broker: Running) -> None:
    with LiveWire(broker.port) as first, LiveWire(broker.port) as second:
        made = first.join(name="bob", keys=["token:1"])
        again = second.join(name="bob", keys=["token:1"])
    assert (again["id"], again["name"]) == (made["id"], "bob")
    old = {"Authorization": f"Bearer {made['token']}"}
    assert refusal(broker, post(broker.port, "/mcp", {}, **old))[0] == 401


# What answers


def test_it_says_what_it_is_and_that_nothing_comes_by_itself(alice: Agent) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}}
    told = alice.ask("initialize", params | {"clientInfo": {"name": "x", "version": "1"}})
    assert told["serverInfo"]["name"] == "claude-peers"
    assert told["protocolVersion"] == "2025-11-25"
    assert "tools" in told["capabilities"]
    assert "experimental" not in told["capabilities"]  # no channel
    assert told["instructions"] == hosted.INSTRUCTIONS
    assert len(hosted.INSTRUCTIONS) < 2000


def test_it_has_the_tools_that_are_listed_elsewhere(alice: Agent) -> None:
    tools = alice.ask("tools/list")["tools"]
    assert [each["name"] for each in tools] == [each.name for each in TOOLS if each.listed]


def test_a_notification_is_accepted(broker: Running, alice: Agent) -> None:
    body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    alice.wire.send(post(broker.port, "/mcp", body, **alice.credentials))
    assert alice.wire.answer()[0] == 202


def test_what_is_no_json_rpc_is_an_error(broker: Running, alice: Agent) -> None:
    for body in (b"{", b"[]", b'{"jsonrpc":"2.0"}'):
        alice.wire.send(post(broker.port, "/mcp", body, **alice.credentials))
        status, _, told = alice.wire.answer()
        assert (status, "error" in json.loads(told)) == (400, True)


def test_an_unknown_tool_is_an_error_and_a_refusal_a_result(alice: Agent) -> None:
    alice.begin("hook")  # it is the client's own, and not served here
    assert "Unknown tool" in json.loads(alice.wire.answer()[2])["error"]["message"]
    alice.begin("send_message", to_id="zzzzzzzz", message="x")
    refused = alice.result()
    assert refused["isError"]
    assert "Peer zzzzzzzz not found" in refused["content"][0]["text"]


def test_the_token_is_who_speaks(alice: Agent, bob: Agent) -> None:
    assert f"ID: {alice.id}" in alice.call("whoami")
    assert alice.call("send_message", to_id="bob", message="hello").startswith("Message sent")
    told = bob.call("whoami")
    assert f"ID: {bob.id}" in told
    assert told.endswith("1 unread message(s) from other agents: call check_messages.")
    shown = bob.call("check_messages")
    assert "hello" in shown
    assert alice.id in shown
    assert "not verified" not in shown
    assert bob.call("check_messages") == "No new messages."


def test_a_peer_that_was_silent_is_there_again_when_it_calls(
    broker: Running, alice: Agent, bob: Agent
) -> None:
    peer = broker.do(lambda: broker.broker.roster.get(bob.id))
    broker.run(broker.broker.peers._let_go([peer], "silence"))
    assert broker.do(lambda: broker.broker.roster.get(bob.id)).presence is Presence.AWAY
    alice.call("send_message", to_id="bob", message="kept")
    assert "1 unread" in bob.call("whoami")
    assert broker.do(lambda: broker.broker.roster.get(bob.id)).presence is Presence.PRESENT
    assert "kept" in bob.call("check_messages")


# Receipts


def test_what_was_written_whole_is_seen(broker: Running, alice: Agent, bob: Agent) -> None:
    for number in range(3):
        alice.call("send_message", to_id="bob", message=f"text {number}")
    shown = bob.call("check_messages")
    assert [shown.count(f"text {number}") for number in range(3)] == [1, 1, 1]
    settled(broker, seen=3)


@pytest.mark.parametrize("how", ["half", "close", "reset"])
def test_what_did_not_reach_the_client_is_unread(
    broker: Running, join: Callable[..., Agent], alice: Agent, how: str
) -> None:
    bob = join("bob")
    alice.call("send_message", to_id="bob", message="precious")
    gate = broker.hold("hand_out")
    bob.begin("check_messages")
    assert gate.entered.wait(BOUND)
    bob.wire.leave(how)
    eventually(lambda: len(broker.do(lambda: broker.server._connections)) == 1, what="the end")
    gate.open()
    settled(broker, queued=1)
    with Wire(broker.port) as wire:
        bob.wire.socket.close()
        bob.wire = wire
        assert bob.call("check_messages").count("precious") == 1
    settled(broker, seen=1)


@pytest.mark.parametrize(("whole", "state"), [(True, "seen"), (False, "queued")])
def test_only_an_answer_that_is_written_whole_is_evidence(
    broker: Running, alice: Agent, bob: Agent, whole: bool, state: str
) -> None:
    alice.call("send_message", to_id="bob", message="precious")
    bob.ask("ping")
    caller = list(broker.server._connections)[-1].caller
    params = {"name": "check_messages"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    raw = post(broker.port, "/mcp", body, **bob.credentials)
    end = framing.head_end(raw)
    response = broker.run(broker.app.answer(caller, framing.check(raw[:end]), raw[end:]))
    assert b"precious" in response.body
    assert states(broker) == {"leased": 1}
    broker.do(response.written, whole)
    settled(broker, **{state: 1})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waits look for mail when they are told to, and not now and then as well."""
    monkeypatch.setattr(waiting, "EVERY", 300.0)


@pytest.mark.usefixtures("told")
def test_waiting_ends_with_a_message(broker: Running, alice: Agent, bob: Agent) -> None:
    asked = alice.call("send_message", to_id="bob", message="question", intent="request")
    number = int(asked.partition("message_id ")[2].partition(",")[0])
    alice.begin("wait_for_message", timeout_s=60, reply_to=number)
    eventually(lambda: _waits(broker, alice), what="a call that waits")
    bob.call("send_message", to_id="alice", message="noise")
    bob.call("send_message", to_id="alice", message="answer", reply_to=number)
    shown = str(alice.result()["content"][0]["text"])
    assert (shown.count("answer"), "noise" in shown) == (1, False)
    assert "noise" in alice.call("check_messages")
    settled(broker, seen=2, answered=1)


def test_waiting_ends_with_its_time(alice: Agent) -> None:
    assert alice.call("wait_for_message", timeout_s=0) == "No message within 0 s."


def test_a_client_that_leaves_waits_no_more_and_nothing_is_handed_out(
    broker: Running, alice: Agent, bob: Agent
) -> None:
    bob.begin("wait_for_message", timeout_s=300)
    eventually(lambda: _waits(broker, bob), what="a call that waits")
    bob.wire.socket.close()
    eventually(lambda: not _waits(broker, bob), what="the end of the wait")
    alice.call("send_message", to_id="bob", message="later")
    assert states(broker) == {"queued": 1}
    (unread,) = broker.run(broker.store.unread(bob.id))
    assert unread.deliveries == 0


@pytest.mark.usefixtures("told")
def test_who_waits_when_the_broker_hands_over_is_told_to_ask_the_next_one(
    broker: Running, alice: Agent, bob: Agent
) -> None:
    bob.begin("wait_for_message", timeout_s=300)
    eventually(lambda: _waits(broker, bob), what="a call that waits")
    broker.run(broker.server.stop_accepting(within=BOUND))
    told = bob.result()
    assert told["isError"]
    assert "Try again" in told["content"][0]["text"]


# Calls that are made again


@pytest.mark.parametrize(
    ("metas", "stored"),
    [
        (({"claude-peers/key": "k 1"}, {"claude-peers/key": "k 1"}), 1),
        (({"claudecode/toolUseId": "toolu_1"}, {"claudecode/toolUseId": "toolu_1"}), 1),
        (({"claude-peers/key": "k 1"}, {"claude-peers/key": "k 2"}), 2),
        (({"claude-peers/key": 7}, {"claude-peers/key": 7}), 2),
        (({}, {}), 2),
    ],
)
@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("send_message", {"to_id": "bob", "message": "text 1"}),
        ("broadcast", {"topic": "@bob", "message": "text 1"}),
    ],
)
def test_a_call_that_is_made_again_under_its_key_sends_once(
    broker: Running,
    alice: Agent,
    bob: Agent,
    metas: tuple[dict[str, Any], ...],
    stored: int,
    tool: str,
    given: dict[str, Any],
) -> None:
    first, second = ({"name": tool, "arguments": given, "_meta": meta} for meta in metas)
    alice.send("tools/call", first)
    settled(broker, queued=1)
    alice.wire.socket.close()  # the answer is not read
    alice.wire = Wire(broker.port)
    told = alice.ask("tools/call", second)["content"][0]["text"]
    assert ("had been sent before" in told) is (stored == 1)
    settled(broker, queued=stored)
    assert bob.call("check_messages").count("text 1") == stored


def test_a_key_that_was_another_messages_is_refused(alice: Agent, bob: Agent) -> None:
    call = {"name": "send_message", "_meta": {"claude-peers/key": "k 1"}}
    first, other = ({"to_id": "bob", "message": text} for text in ("text 1", "text 2"))
    assert not alice.ask("tools/call", {**call, "arguments": first}).get("isError")
    told = alice.ask("tools/call", {**call, "arguments": other})
    assert told["isError"] and "Use a new key" in told["content"][0]["text"]
    assert "text 2" not in bob.call("check_messages")


def test_a_store_that_does_not_answer_leaves_open_what_became_of_a_message(
    broker: Running, alice: Agent, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert alice.call("check_messages") == "No new messages."
    monkeypatch.setattr(hosted._Client.call, "__kwdefaults__", {"within": 0.05})
    gate = broker.hold("accept")
    told = alice.ask(
        "tools/call",
        {"name": "send_message", "arguments": {"to_id": bob.id, "message": "x"}},
    )
    text = told["content"][0]["text"]
    assert told["isError"] and "may have been stored or not" in text
    assert "The same call again sends a second message, unless both have the same" in text
    assert "then it is one message" not in text  # which is so in a session only
    gate.open()


def _waits(broker: Running, agent: Agent) -> bool:
    return bool(broker.do(lambda: broker.broker.mail.arrivals.get(agent.id)))


# Loading


def test_while_it_loads_on_another_thread_the_loop_serves_everybody(
    broker: Running, loader: Loader, alice: Agent, bob: Agent
) -> None:
    loader.may.clear()
    alice.send("ping")
    assert loader.begun.wait(BOUND)
    bob.send("ping")
    with LiveWire(broker.port) as session:  # the host's own session is such a connection
        me = session.join()["id"]
        status, sent = session.call(2, "/send-message", {"from_id": me, "to_id": me, "text": "x"})
        assert (status, sent["ok"]) == (200, True)
    assert broker.do(threading.get_ident) not in loader.threads
    loader.may.set()
    assert [alice.result(), bob.result()] == [{}, {}]
    assert len(loader.threads) == 1


def test_loading_that_failed_is_tried_again(
    broker: Running, loader: Loader, alice: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise SettingsError("CLAUDE_PEERS_MCP", "sdk", "Install it.")

    with monkeypatch.context() as patch:
        patch.setattr(generations, "load", missing)
        alice.send("ping")
        status, _, body = alice.wire.answer()
    told = json.loads(body)
    assert (status, told["code"]) == (501, "no_sdk")
    assert "stdio" in told["remedy"]
    assert alice.ask("ping") == {}
    assert len(loader.threads) == 2


def test_an_endpoint_that_fails_is_an_internal_error(
    broker: Running, alice: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_visit: Visit) -> Any:
        raise ValueError("secret")

    broker.app.mcp = Mcp(broker.app, load=lambda: broken)
    alice.send("ping")
    status, _, body = alice.wire.answer()
    assert (status, json.loads(body)["code"]) == (500, "internal")
    assert b"secret" not in body
    assert "/mcp failed" in caplog.text


def test_without_it_the_path_is_unknown(broker: Running, alice: Agent) -> None:
    broker.app.mcp = None
    alice.send("ping")
    assert alice.wire.answer()[0] == 404
