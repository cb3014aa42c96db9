"""The session's end of the live connection, against a real broker and against others."""

import asyncio
import contextlib
import json
import socket

import anyio
import pytest
from support import waiting
from support.inproc import SECRET, running

from claude_peers.client import link as links
from claude_peers.client.client import Client
from claude_peers.client.link import LiveLink, NotOursError, connect
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.models import Process
from claude_peers.gateway.places import Places
from claude_peers.wire import frames, proof

pytestmark = pytest.mark.anyio
BOUND = 10


class Listener:
    """Somebody on a port, who does what the test says.

    Attributes:
        received: every byte that came.
        links: where to write to, one per connection.
    """

    def __init__(self, answer):
        self.received = b""
        self.writers = []
        self._answer = answer

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.received += await reader.readuntil(b"\r\n\r\n")
            answer = self._answer(self.received.decode())
            if answer is None:
                writer.close()
                return
            writer.write(answer)
            while more := await reader.read(65536):
                self.received += more


def proves(secret=SECRET, *, status=b"101 Switching Protocols", rest=b""):
    """Return an answer with a proof under `secret`, and what follows it at once."""

    def answer(head):
        nonce = dict(line.split(": ") for line in head.strip().split("\r\n")[1:])[
            proof.NONCE_HEADER
        ]
        shown = proof.broker_proof(secret, nonce, 7)
        lines = [b"HTTP/1.1 " + status, f"{proof.PROOF_HEADER}: {shown}".encode()]
        lines += [f"{proof.CHALLENGE_HEADER}:c9".encode(), b"", b""]
        return b"\r\n".join(lines) + rest

    return answer


@contextlib.asynccontextmanager
async def connected(*, rest=b""):
    """Yield a listener that has proved itself, and the link to it."""
    async with Listener(proves(rest=rest)) as listener:
        with anyio.fail_after(BOUND):
            link = await connect(listener.port, SECRET)
        try:
            yield listener, link
        finally:
            link.close()
            with anyio.fail_after(BOUND):
                await link.ended()


async def eventually(probe):
    await asyncio.to_thread(waiting.eventually, probe, timeout=BOUND)


# Whom to trust


async def test_a_broker_that_proves_itself_is_followed():
    async with connected() as (listener, link):
        assert link.epoch == 7
        assert link.prove(SECRET) == proof.client_proof(SECRET, "c9")
        assert listener.received.startswith(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1:")


NOT_OURS = {
    "another secret": proves(b"x" * 32),
    "no upgrade": proves(status=b"200 OK"),
    "no status": proves(status=b"Hello"),
    "upstream": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "our broker, guarded": lambda _: b"HTTP/1.1 401 Unauthorized\r\n\r\n",
    "nothing to see": lambda _: b"\r\n\r\n",
    "not http": lambda _: b"220 mail ready\r\n\r\n",
}


@pytest.mark.parametrize("case", NOT_OURS)
@pytest.mark.threat("T11")
async def test_whoever_has_no_proof_gets_nothing_but_the_question(case):
    async with Listener(NOT_OURS[case]) as listener:
        with anyio.fail_after(BOUND), pytest.raises(NotOursError, match=str(listener.port)):
            await connect(listener.port, SECRET)
        await eventually(lambda: listener.received.endswith(b"\r\n\r\n"))
        lines = listener.received.decode().strip().split("\r\n")
        assert sorted(line.partition(":")[0].lower() for line in lines[1:]) == [
            "connection",
            "host",
            "upgrade",
            proof.NONCE_HEADER,
        ]


def refuses(told):
    """Return an answer that there is no connection to be had."""
    body = json.dumps(told).encode() if isinstance(told, dict) else told
    return lambda _head: b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n" + body


async def test_a_broker_without_a_place_is_not_called_a_stranger_nor_quoted():
    told = {"error": "canary", "code": "crowded", "remedy": "canary"}
    async with Listener(refuses(told)) as listener:
        with pytest.raises(NoBrokerError, match="no place for one more connection") as refused:
            await connect(listener.port, SECRET)
    assert not isinstance(refused.value, NotOursError)
    assert "ulimit -Hn" in str(refused.value) and "canary" not in str(refused.value)


@pytest.mark.parametrize("told", [{"code": "not_leader"}, {"code": 7}, b"", b"{"])
async def test_a_broker_that_refuses_for_another_reason_is_asked_as_ever(told):
    async with Listener(refuses(told)) as listener:
        with pytest.raises(NotOursError):
            await connect(listener.port, SECRET)


async def test_a_crowded_broker_is_told_as_such_to_a_session():
    none = Places(requests=5, streams=1, together=0)
    with running(places=none) as broker, pytest.raises(NoBrokerError, match="no place for one"):
        await connect(broker.port, SECRET)


async def test_a_proof_for_an_earlier_question_does_not_count():
    said = []

    def recorded(head):
        said.append(proves()(head))
        return said[0]

    async with Listener(recorded) as listener:
        (await connect(listener.port, SECRET)).close()
        listener.received = b""
        with pytest.raises(NotOursError):
            await connect(listener.port, SECRET)
        assert len(said) == 2


@pytest.mark.parametrize("answer", [lambda _: None, lambda _: b"x" * 10_000])
async def test_whoever_hangs_up_or_answers_without_end_counts_as_a_broken_connection(answer):
    async with Listener(answer) as listener:
        with anyio.fail_after(BOUND), pytest.raises(OSError, match=r"hung up|reset"):
            await connect(listener.port, SECRET)


async def test_whoever_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(links, "HANDSHAKE", 0.02)
    async with Listener(lambda _: b"HTTP/1.1 101 ") as listener:
        with anyio.fail_after(BOUND), pytest.raises(TimeoutError):
            await connect(listener.port, SECRET)


async def test_nobody_on_the_port_is_a_refused_connection():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect(free.getsockname()[1], SECRET)


async def test_a_connection_to_itself_is_nobody_on_the_port():
    with socket.socket() as itself:
        itself.bind(("127.0.0.1", 0))
        address = itself.getsockname()
        itself.connect(address)
        itself.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, link = await loop.create_connection(LiveLink, sock=itself)
        with pytest.raises(ConnectionRefusedError):
            await link.upgrade(address[1], SECRET)
        transport.abort()
        with anyio.fail_after(BOUND):
            await link.ended()


# Frames


async def test_frames_that_follow_the_proof_at_once_are_taken():
    rest = frames.leader(Process(pid=3, started="4"), 7) + frames.standby() + b'{"ping"'
    async with connected(rest=rest) as (listener, link):
        assert link.leader == Process(pid=3, started="4")
        assert link.standby
        before = link.heard
        listener.writers[0].write(b":7}\n")
        await eventually(lambda: link.heard > before)


async def test_answers_pushes_and_the_rest_reach_whom_they_are_for():
    async with connected() as (listener, link):
        came = []
        link.answered = lambda *given: came.append(given)
        link.pushed = lambda *given: came.append(given)
        link.settled = came.append
        link.on_standby = lambda: came.append("standby")
        link.send(5, "/list-peers", {"scope": "machine"})
        await eventually(lambda: listener.received.endswith(b"}}\n"))
        assert json.loads(listener.received.split(b"\r\n\r\n")[1]) == {
            "id": 5,
            "op": "/list-peers",
            "body": {"scope": "machine"},
        }
        whole = (
            frames.answer(5, 200, ["é"])
            + frames.push({"id": 1}, {"name": "a"})
            + frames.push({"id": 2}, None)
            + frames.settled([1, 2])
            + frames.standby()
        )
        for byte in whole:  # in however many pieces it comes
            listener.writers[0].write(bytes([byte]))
            await asyncio.sleep(0)
        await eventually(lambda: len(came) == 5)
        assert came == [
            (5, 200, ["é"]),
            ({"id": 1}, {"name": "a"}),
            ({"id": 2}, None),
            [1, 2],
            "standby",
        ]


async def test_what_a_later_version_may_say_is_passed_over():
    async with connected() as (listener, link):
        came = []
        link.pushed = lambda *given: came.append(given)
        for frame in (
            {"news": 1},
            {"leader": {"pid": 3, "started": "4", "host": "h"}, "epoch": 7},
            {"leader": None},
            {"re": 1},
            {"re": "x", "status": 200, "body": {}},
            {"message": "x"},
            {"message": {"id": 1}, "from": None, "more": 1},
        ):
            listener.writers[0].write(json.dumps(frame).encode() + b"\n")
        await eventually(lambda: came)
        assert came == [({"id": 1}, None)]
        assert link.leader == Process(pid=3, started="4")


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400\n", b"[]\n", b"\xff\n"])
async def test_garbage_ends_the_connection(garbage):
    async with connected() as (listener, link):
        listener.writers[0].write(garbage)
        with anyio.fail_after(BOUND):
            await link.ended()
        link.send(1, "/list-peers", {})  # which then goes nowhere, quietly


async def test_the_end_of_the_connection_is_told_to_everybody_who_waits():
    async with connected() as (listener, link):
        patient = [asyncio.ensure_future(link.ended()) for _ in range(3)]
        impatient = asyncio.ensure_future(link.ended())
        await asyncio.sleep(0)
        impatient.cancel()
        listener.writers[0].close()
        with anyio.fail_after(BOUND):
            await asyncio.gather(*patient)


# A real broker


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


async def attached(broker, client):
    link = await connect(broker.port, SECRET)
    await client.attach(link, SECRET)
    return link


async def test_mail_goes_from_one_client_to_another_and_is_acknowledged(broker):
    one, other = (Client(lambda: {"cwd": "/w"}) for _ in range(2))
    came = asyncio.Queue()
    other.pushed = lambda message, sender: came.put_nowait((message, sender))
    with anyio.fail_after(BOUND):
        first, second = await attached(broker, one), await attached(broker, other)
        body = {"from_id": one.peer_id, "to_id": other.peer_id, "text": "hi"}
        sent = await one.call("/send-message", body)
        message, sender = await came.get()
        assert (message["text"], message["verified"], sender["cwd"]) == ("hi", True, "/w")
        done = {"id": other.peer_id, "message_ids": [sent["message_id"]]}
        assert (await other.call("/ack-messages", done))["acked"] == 1
        for link in (first, second):
            link.close()
            await link.ended()


async def test_a_request_that_a_broken_connection_swallowed_is_one_message(broker):
    client = Client(dict)
    with anyio.fail_after(BOUND):
        link = await attached(broker, client)
        gate = await asyncio.to_thread(broker.hold, "accept")
        body = {"from_id": client.peer_id, "to_id": client.peer_id, "text": "a", "dedupe_key": "k"}
        call = asyncio.ensure_future(client.call("/send-message", body))
        await eventually(gate.entered.is_set)
        await asyncio.to_thread(broker.do, broker.server.hang_up)
        await link.ended()
        client.detach()
        again = await attached(broker, client)
        await eventually(lambda: gate.calls == 2)
        await asyncio.to_thread(gate.open)
        answer = await call
        assert answer["duplicate"]
        mail = await client.call("/peek-messages", {"id": client.peer_id})
        assert [each["text"] for each in mail["messages"]] == ["a"]
        again.close()
        await again.ended()


@pytest.mark.threat("T11")
async def test_a_client_without_the_secret_says_nothing_to_the_broker(broker):
    with pytest.raises(NoBrokerError):
        await connect(broker.port, b"y" * 32)
    assert len(broker.connections) == 0
