"""A session behind an upstream broker, which consumes on poll and forgets."""

import asyncio
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest
from support import waiting

from claude_peers.client import upstream
from claude_peers.client.client import Client
from claude_peers.client.errors import NotOfferedError, RefusedError
from claude_peers.client.http import BrokerHttp
from claude_peers.client.upstream import UpstreamLink
from claude_peers.core.errors import NoBrokerError

pytestmark = pytest.mark.anyio
BOUND = 10
REGISTRATION = {
    "pid": 7,
    "cwd": "/w",
    "git_root": None,
    "tty": None,
    "summary": "",
    "name": "main",
    "keys": ["resume:1"],
}

ANSWERS = {
    "/health": (200, {"status": "ok", "peers": 0}),
    "/register": (200, {"id": "upstream"}),
    "/list-peers": (200, [{"id": "otherone"}]),
    **dict.fromkeys(
        ("/heartbeat", "/set-summary", "/unregister", "/send-message"), (200, {"ok": True})
    ),
}


class Upstream(ThreadingHTTPServer):
    """Answers as claude-peers-mcp's broker.ts does.

    Attributes:
        requests: path and body of what came.
        mail: what the next poll hands out, and forgets.
    """

    daemon_threads = True

    def __init__(self):
        self.requests = []
        self.mail = []
        super().__init__(("127.0.0.1", 0), Answer)
        self.port = self.server_address[1]

    def put(self, number, text):
        """Put a message into the mailbox."""
        body = {"id": number, "from_id": "otherone", "to_id": "upstream", "text": text}
        self.mail.append(body | {"sent_at": "2026-01-01T00:00:00.000Z", "delivered": 0})

    def paths(self):
        return [path for path, _ in self.requests]

    def answer(self, path, body):
        self.requests.append((path, body))
        if path == "/poll-messages":
            mail, self.mail = self.mail, []
            return 200, {"messages": mail}
        if path == "/send-message" and body["to_id"] == "nobody":
            return 200, {"ok": False, "error": "Peer nobody not found"}
        return ANSWERS.get(path, (404, {"error": "not found"}))


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body):
        status, told = self.server.answer(urllib.parse.urlsplit(self.path).path, body)
        if told is None:
            self.close_connection = True
            return
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def broker():
    serving = Upstream()
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    yield serving
    serving.shutdown()
    thread.join(BOUND)
    serving.server_close()


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(upstream, "POLL_EVERY", 0.002)


def http(broker, *, uid=1000):
    return BrokerHttp(
        broker.port,
        secret=None,
        trust_listener=False,
        listener_uid=lambda _port: uid,
        own_uid=1000,
    )


class Session:
    """A client behind an upstream broker."""

    def __init__(self, broker, registration=REGISTRATION):
        self.client = Client(lambda: dict(registration))
        self.pushed = []
        self.client.pushed = lambda message, sender: self.pushed.append((message, sender))
        self._broker = broker

    async def attach(self):
        connection = http(self._broker)
        await asyncio.to_thread(connection.open)
        self.link = UpstreamLink(connection)
        await self.client.attach(self.link, b"s" * 32)

    async def __aenter__(self):
        await self.attach()
        return self

    async def __aexit__(self, *_):
        self.link.close()
        with anyio.fail_after(BOUND):
            await self.link.ended()

    async def poll(self, **more):
        answer = await self.client.call("/poll-messages", {"id": "upstream", **more})
        return [message["text"] for message in answer["messages"]]


async def eventually(probe):
    await asyncio.to_thread(waiting.eventually, probe, timeout=BOUND)


async def test_it_is_told_no_more_than_its_own_clients_tell(broker):
    async with Session(broker) as session:
        assert session.client.peer_id == "upstream"
        body = {"from_id": "upstream", "to_id": "otherone", "text": "hi", "dedupe_key": "k"}
        assert (await session.client.call("/send-message", body))["ok"]
    sent = dict(broker.requests)
    assert sent["/register"] == {
        name: REGISTRATION[name] for name in ("pid", "cwd", "git_root", "tty", "summary")
    }
    assert sent["/send-message"] == {"from_id": "upstream", "to_id": "otherone", "text": "hi"}


SAID = ("/register", "/send-message")
PROFILE = {
    "client": "codex-mcp-client 0.171.0",
    "fleet_id": "red",
    "device_id": "edge",
    "capabilities": ["review"],
    "lwt": {"topic": "status", "message": "gone"},
}


@pytest.mark.parametrize("version", ["agentmesh/0.1.0", "agentmesh/0.4.0", None])
async def test_agentmesh_is_told_what_it_knows_in_its_words(broker, monkeypatch, version):
    monkeypatch.setitem(ANSWERS, "/health", (200, {"status": "ok", "version": version}))
    message = {"from_id": "upstream", "to_id": "otherone", "text": "hi"}
    async with Session(broker, REGISTRATION | PROFILE) as session:
        await session.client.call("/send-message", message | {"qos": 0, "dedupe_key": "k"})
        await session.client.call("/send-message", message | {"text": "as usual"})
    registration, first, second = (body for path, body in broker.requests if path in SAID)
    plain = {name: REGISTRATION[name] for name in ("pid", "cwd", "git_root", "tty", "summary")}
    named = {"agent_name": "main", "agent_type": "codex-mcp-client"}
    told = {name: PROFILE[name] for name in PROFILE if name != "client"}
    assert registration == (plain | named | told if version else plain)
    assert first == (message | {"qos": 0} if version else message)
    assert second == message | {"text": "as usual"}


async def test_a_session_that_says_nothing_of_itself_has_a_name_there(broker, monkeypatch):
    monkeypatch.setitem(ANSWERS, "/health", (200, {"status": "ok", "version": "agentmesh/0.4.0"}))
    async with Session(broker):
        pass
    told = dict(broker.requests)["/register"]
    assert told["agent_name"] == "main"
    assert sorted(told) == ["agent_name", "cwd", "git_root", "pid", "summary", "tty"]


async def test_a_session_keeps_its_own_name_and_token_for_the_next_broker(broker, monkeypatch):
    monkeypatch.setitem(ANSWERS, "/register", (200, {"id": "upstream", "token": "theirs"}))
    connection = http(broker)
    await asyncio.to_thread(connection.open)
    link, came = UpstreamLink(connection), []
    link.answered = lambda *given: came.append(given)
    link.send(1, "/register", REGISTRATION)
    await eventually(lambda: came)
    link.close()
    await link.ended()
    assert came == [(1, 200, {"id": "upstream", "name": "main"})]


async def test_a_type_of_agents_is_asked_for_as_it_was_told(broker, monkeypatch):
    monkeypatch.setitem(ANSWERS, "/health", (200, {"status": "ok", "version": "agentmesh/0.4.0"}))
    monkeypatch.setitem(ANSWERS, "/list-peers", (200, []))
    async with Session(broker) as session:
        await session.client.call("/list-peers", {"agent_type": "Gemini CLI"})
    assert dict(broker.requests)["/list-peers"]["agent_type"] == "Gemini CLI"


async def test_what_it_would_pass_over_is_refused(broker):
    async with Session(broker) as session:
        with pytest.raises(RefusedError, match="knows no scopes"):
            await session.client.call("/broadcast", {"scope": "@machine", "text": "x"})
        with pytest.raises(RefusedError, match="knows no fleets") as refused:
            await session.client.call("/list-peers", {"fleet_id": "red"})
    assert refused.value.code == "not_offered"
    assert "/broadcast" not in broker.paths()


async def test_what_it_knows_it_is_asked_and_its_refusals_come_through(broker):
    async with Session(broker) as session:
        assert await session.client.call("/list-peers", {"scope": "machine"}) == [
            {"id": "otherone"}
        ]
        assert (await session.client.call("/set-summary", {"id": "upstream", "summary": "x"}))["ok"]
        with pytest.raises(RefusedError, match="Peer nobody not found"):
            await session.client.call(
                "/send-message", {"from_id": "upstream", "to_id": "nobody", "text": "x"}
            )
        with pytest.raises(NotOfferedError, match="it knows no /ledger"):
            await session.client.call("/ledger", {})


async def test_what_only_our_broker_knows_does_not_reach_it(broker):
    async with Session(broker) as session:
        for path in ("/ack-messages", "/release-messages", "/pushed-messages"):
            answer = await session.client.call(path, {"id": "upstream", "message_ids": [1]})
            assert answer["ok"]
            assert path not in broker.paths()


async def test_mail_is_fetched_by_itself_and_held_until_it_is_acknowledged(broker):
    async with Session(broker) as session:
        broker.put(1, "one")
        broker.put(2, "two")
        await eventually(lambda: len(session.pushed) == 2)
        (first, sender), (second, _) = session.pushed
        assert (first["text"], first["id"], first["uid"], sender) == ("one", -1, "upstream-1", None)
        assert await session.poll() == ["one", "two"]
        assert await session.poll(exclude=[first["id"]]) == ["two"]
        await session.client.call("/release-messages", {"message_ids": [first["id"]]})
        assert await session.poll() == ["one", "two"]
        await session.client.call("/ack-messages", {"message_ids": [first["id"]]})
        assert await session.poll() == ["two"]
        assert second["id"] == -2


async def test_of_an_agentmesh_message_what_ours_reads_otherwise_is_left_out(broker):
    more = {"topic": "build", "qos": 1, "expires_at": "2026-01-01T00:00:00.000Z", "signature": None}
    async with Session(broker) as session:
        broker.put(1, "one")
        broker.mail[0] |= more
        await eventually(lambda: session.pushed)
        ((message, _),) = session.pushed
    assert message == {
        "from_id": "otherone",
        "to_id": "upstream",
        "text": "one",
        "topic": "build",
        "sent_at": "2026-01-01T00:00:00.000Z",
        "id": -1,
        "uid": "upstream-1",
    }


async def test_asking_for_mail_asks_the_broker_at_once(broker, monkeypatch):
    monkeypatch.setattr(upstream, "POLL_EVERY", 3600)
    async with Session(broker) as session:
        broker.put(1, "one")
        assert await session.poll() == ["one"]
        assert len(session.pushed) == 1


async def test_held_mail_outlives_a_broken_connection(broker):
    async with Session(broker) as session:
        broker.put(1, "one")
        await eventually(lambda: session.pushed)
        session.link.close()
        await session.link.ended()
        session.client.detach()
        await session.attach()
        broker.put(2, "two")
        assert await session.poll() == ["one", "two"]


async def test_mail_that_is_being_fetched_when_the_connection_is_given_up_is_held(broker):
    taken, go_on = threading.Event(), threading.Event()
    original = broker.answer

    def slow(path, body):
        told = original(path, body)
        if path == "/poll-messages":
            taken.set()
            go_on.wait(BOUND)
        return told

    async with Session(broker) as session:
        broker.put(1, "one")
        broker.answer = slow
        await eventually(taken.is_set)
        session.link.close()
        session.client.detach()
        go_on.set()
        await session.link.ended()
        broker.answer = original
        await session.attach()
        assert await session.poll() == ["one"]


@pytest.mark.bug("U10")
async def test_requests_that_come_faster_than_polls_do_not_keep_mail_off(broker):
    async with Session(broker) as session:
        broker.put(1, "one")
        with anyio.fail_after(BOUND):
            while not session.pushed:
                await session.client.call("/list-peers", {})


async def test_it_gets_a_sign_of_life_every_so_often(broker, monkeypatch):
    monkeypatch.setattr(upstream, "HEARTBEAT_EVERY", 3)
    async with Session(broker):
        await eventually(lambda: broker.paths().count("/heartbeat") >= 2)
        paths = [path for path in broker.paths() if path in {"/heartbeat", "/poll-messages"}]
        first = paths.index("/heartbeat")
        assert paths[:first].count("/poll-messages") == 2
        assert paths[first + 1 : paths.index("/heartbeat", first + 1)].count("/poll-messages") == 3


async def test_nothing_is_polled_before_the_registration(broker):
    connection = http(broker)
    await asyncio.to_thread(connection.open)
    link = UpstreamLink(connection)
    came = []
    link.answered = lambda *given: came.append(given)
    for number in range(3):
        link.send(number, "/poll-messages", {})
    await eventually(lambda: len(came) == 3)
    assert broker.paths() == ["/health"]
    link.close()
    await link.ended()
    assert link.prove(b"s") is None


@pytest.mark.parametrize(
    "answer",
    [
        (200, None),
        (200, "a text"),
        (200, {"messages": ["x", {}, {"id": "1"}]}),
        (500, {"error": "locked"}),
    ],
)
async def test_an_odd_answer_to_a_poll_loses_nothing_that_is_held(broker, monkeypatch, answer):
    async with Session(broker) as session:
        broker.put(1, "one")
        await eventually(lambda: session.pushed)
        original = broker.answer
        monkeypatch.setattr(
            broker, "answer", lambda p, b: answer if p == "/poll-messages" else original(p, b)
        )
        if answer[1] is None:  # it broke off: the connection is over
            await eventually(session.link._task.done)
            session.client.detach()
            monkeypatch.setattr(broker, "answer", original)
            await session.attach()
        assert await session.poll() == ["one"]


async def test_the_end_of_the_broker_is_the_end_of_the_link_and_requests_wait(broker):
    async with Session(broker) as session:
        original, broker.answer = broker.answer, lambda _path, _body: (200, None)
        call = asyncio.ensure_future(session.client.call("/list-peers", {}))
        with anyio.fail_after(BOUND):
            await session.link.ended()
        session.client.detach()
        assert not call.done()
        broker.answer = original
        await session.attach()
        with anyio.fail_after(BOUND):
            assert await call == [{"id": "otherone"}]


async def test_another_users_broker_is_none(broker):
    with pytest.raises(NoBrokerError, match="another user"):
        await asyncio.to_thread(http(broker, uid=1001).open)
