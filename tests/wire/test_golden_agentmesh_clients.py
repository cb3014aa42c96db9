"""Everything that agentmesh 0.4's own server and command line send is served by our broker.

Requests and frames go out as they were recorded, headers included. Answers are compared as those of
the recorded brokers are (`test_golden_agentmesh.py`), frames as in `test_golden_websocket.py`.
"""

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any, Self

import pytest
from support import http
from support.golden import Bindings, load, parse
from support.inproc import Running, head, running
from support.machine import Machine
from support.websocket import RawSocket, frame
from wire.test_golden_agentmesh import Mesh
from wire.test_golden_upstream import end
from wire.test_golden_websocket import keep

from claude_peers.broker import wills
from claude_peers.core.models import State

TEXT, CLOSE = 1, 8
NONCE = base64.b64encode(b"k" * 16).decode()
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""
REFUSED = {
    "ws-026-post-send-message": (400, "no text; agentmesh says so with a 500"),
    "ws-036-post-subscribe": (400, "no topic; the same"),
    "ws-045-post-broadcast": (400, "neither topic nor text; the same"),
    "ws-053-post-set-summary": (400, "no summary; the same"),
    "ws-027-post-send-message": (400, "no recipient; agentmesh knows nobody called undefined"),
    "ws-047-post-unsubscribe": (400, "no topic; agentmesh says ok"),
    "ws-073-post-dead-letters": (
        401,
        "its command line asks for another's without a token; `claude-peers dead-letters` may",
    ),
}
"""Requests that we refuse: most are a model's that called a tool wrongly, passed on unread."""


def recording() -> list[dict[str, Any]]:
    """Return the recorded lines, ready to be filled."""
    text = json.dumps(load("client-requests-agentmesh-0.4.jsonl"))
    for name, replaced in (
        ("<host>", "here"),  # as `support.inproc` calls the machine
        ("<token-hash:", "<token:"),  # our CONNECTED has the token itself, theirs its digest
        ("<dlid:", "<mid:dead"),
        ("<ws-key>", NONCE),
    ):
        text = text.replace(name, replaced)
    return list(json.loads(text))


RECORDING = recording()


class Clients:
    """The recorded clients and their sockets.

    A line's order among those of other clients is approximate: a frame of the broker's is looked
    for before the next thing that is said on a socket, not before the requests in between.

    Attributes:
        complaints: what came out otherwise than agreed.
        sockets: by the placeholder of the peer that is on it.
        got: placeholders of the messages that came, in their order.
    """

    def __init__(self, port: int, bindings: Bindings) -> None:
        self.port = port
        self.bindings = bindings
        bindings.values["<port>"] = str(port)
        self.mesh = Mesh(port, bindings)
        self.complaints: list[str] = []
        self.sockets: dict[str, RawSocket] = {}
        self.got: list[str] = []
        self._opened: RawSocket | None = None
        self._speaker = ""
        self._expected: list[dict[str, Any]] = []

    def close(self) -> None:
        """Look for what is still to come, then end the sockets."""
        try:
            self.complaints += self._look()
            for name in list(self.sockets):
                self.end_socket(name)
        finally:
            for each in self.sockets.values():
                each.socket.close()

    def end_socket(self, name: str, how: str = "close") -> None:
        """End the socket of a peer, after a look whether anything came that was not recorded."""
        socket = self.sockets[name]
        socket.send(frame(b'{"type":"PING"}', TEXT))  # answered after what was acknowledged
        if (found := socket.text()) != {"type": "PONG"}:
            self.complaints.append(f"{name} was sent {found} as well")
        self.sockets.pop(name).leave(how)

    def play(self, line: dict[str, Any]) -> None:
        """Replay one line, and note what came out otherwise than agreed."""
        found = self._request(line) if "request" in line else self._frame(line)
        self.complaints += [f"{line['case']}: {each}" for each in found]

    # Requests

    def _request(self, line: dict[str, Any]) -> Iterator[str]:
        request, status = line["request"], line["response"]["status"]
        if request["path"] == "/ws":
            yield from self._open(request["headers"])
        elif line["case"] in REFUSED or status == 0:
            headers = {n: v for n, v in request["headers"].items() if n != "Content-Length"}
            headers = {name: self.bindings.fill(value) for name, value in headers.items()}
            body = self.bindings.fill(request["body_text"])
            answer = http.post(self.port, request["path"], body, headers)
            wanted = REFUSED.get(line["case"], (200, ""))[0]
            if answer.status != wanted or (wanted != 200 and "error" not in answer.json()):
                yield f"{answer.status} {answer.text}"
        else:
            yield from self.mesh.complaints(line)

    def _open(self, headers: dict[str, str]) -> Iterator[str]:
        """Open a WebSocket with the client's own headers; compression is offered, not taken."""
        self._opened = opened = RawSocket(self.port)
        given = {name.replace("-", "_"): value for name, value in headers.items() if name != "Host"}
        opened.send(head(self.port, "GET", "/ws", **given))
        status, told, _ = opened.answer(bare=True)
        accept = base64.b64encode(hashlib.sha1((NONCE + GUID).encode()).digest()).decode()
        if (status, told.get("sec-websocket-accept")) != (101, accept):
            yield f"{status} {told}"
        if "sec-websocket-extensions" in told:
            yield "compresses"

    # Frames

    def _frame(self, line: dict[str, Any]) -> Iterator[str]:
        if "out" in line:
            self._expected.append(line)
            return
        yield from self._look()
        if line["frame"] == "close":
            self._socket.send(frame(bytes.fromhex(line["in"]), CLOSE))
            return
        said = parse(line["in"])
        if said["type"] == "CONNECT":
            assert self._opened is not None
            self._speaker = said["agent_id"]
            self.sockets[self._speaker], self._opened = self._opened, None
        self._socket.send(frame(self.bindings.fill(line["in"]).encode(), TEXT))

    @property
    def _socket(self) -> RawSocket:
        return self.sockets[self._speaker]

    def _look(self) -> Iterator[str]:
        """Compare what the broker was recorded to write, each on its client's socket."""
        expected, self._expected = self._expected, []
        for line in expected:
            if line["frame"] == "close":
                _, payload = self._socket.frame()
                if payload != bytes.fromhex(line["out"]):
                    yield f"{line['case']}: closed with {payload!r}"
                with self.sockets.pop(self._speaker) as closed:
                    if rest := closed.rest():
                        yield f"{line['case']}: {rest!r} after that"
                continue
            wanted = parse(line["out"])
            message = wanted.get("message", {})
            self._speaker = message.get("to_id", self._speaker)
            self.got += [message["id"]] if message else []
            keep(message)
            yield from self.bindings.differences(wanted, self._socket.text(), line["case"])


def cases(session: str, first: int, last: int) -> list[dict[str, Any]]:
    """Return the recorded lines of a session, from one number to another."""
    return [
        each
        for each in RECORDING
        if each["session"] == session and first <= int(each["case"].split("-")[1]) <= last
    ]


class World:
    """What happens around the clients: other clients' messages, a loss, time that passes."""

    def __init__(self, broker: Running, bindings: Bindings) -> None:
        self.broker = broker
        self.bindings = bindings
        self.clients = Clients(broker.port, bindings)
        self.played: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clients.close()

    def play(self, session: str, first: int, last: int) -> None:
        for each in cases(session, first, last):
            self.played.append(each["case"])
            self.clients.play(each)

    def post(self, path: str, body: dict[str, Any], speaker: str = "") -> Any:
        headers = {"Content-Type": "application/json"}
        if speaker:
            headers["Authorization"] = self.bindings.fill(f"Bearer <token:{speaker}>")
        text = self.bindings.fill(json.dumps(body))
        answer = http.post(self.broker.port, path, text, headers)
        assert answer.status == 200, answer.text
        return answer.json()

    def publish(self, topic: str, text: str, *, retain: bool = False) -> None:
        body = {"from_id": "cli", "topic": topic, "text": text, "retain": retain}
        self.post("/broadcast", body)

    def lose(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.clients.end_socket(f"<id:{name}>", "reset")
        end(process)
        self.broker.run(self.broker.broker.peers.sweep())  # as a node does, which sees it at once

    def send_with_an_end(self) -> None:
        x = self.post("/register", {"cwd": "/x", "agent_type": "custom", "agent_name": "ttl"})
        self.bindings.values |= {"<id:X>": x["id"], "<token:X>": x["token"]}
        letter = {"to_id": "<id:P>", "text": "expires soon", "ttl_ms": 60_000}
        self.post("/send-message", {"from_id": "<id:X>", **letter}, "X")


def the_day_until_a_loss(world: World, living: dict[str, subprocess.Popen[bytes]]) -> None:
    world.play("nows", 1, 2)
    world.publish("cfg/kept", "retained for P", retain=True)
    world.play("nows", 4, 9)
    world.play("ws", 1, 55)
    letter = {"from_id": "<id:A>", "to_id": "<id:P>", "text": "polled one"}
    world.post("/send-message", letter, "A")
    world.play("nows", 15, 20)
    world.publish("cfg/late", "late")
    world.lose("B", living["B"])
    world.play("ws", 56, 62)


def the_rest_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.broker.broker
    world.send_with_an_end()
    world.play("nows", 22, 25)
    wall = broker.clock.wall
    monkeypatch.setattr(broker.clock, "wall", lambda: wall() + 120)
    world.broker.run(broker.tidy())
    world.play("nows", 31, 40)
    world.play("ws", 63, 73)


def test_agentmeshs_clients_are_served_as_they_are(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wills, "RECONNECT", 0.0)
    living = {name: machine.bystander() for name in "ABPD"}
    known = {f"<pid:{name}>": str(each.pid) for name, each in living.items()}
    bindings = Bindings({**known, "<cwd>": str(machine.work)})
    with running(deliveries=4) as broker, World(broker, bindings) as first:
        the_day_until_a_loss(first, living)
        the_rest_of_it(first, monkeypatch)
        first.clients.close()
        states = broker.run(broker.store.ledger()).states
    # This one knows nobody of those.
    with running(deliveries=4) as broker, World(broker, bindings) as second:
        second.play("ws", 74, 84)
        second.play("nows", 41, 43)

    told = [*first.clients.complaints, *second.clients.complaints]
    assert not told, "\n".join(told)
    assert not first.clients.mesh.skipped | second.clients.mesh.skipped
    assert sorted(first.played + second.played) == sorted(each["case"] for each in RECORDING)
    assert states == {State.SEEN: 10, State.DEAD: 1}  # what was to be acknowledged was
    got = [bindings.values[each] for each in first.clients.got]
    assert len(got) == len(set(got)) == 7  # none lost, none twice, and see `end_socket`


def test_every_refused_request_is_recorded() -> None:
    assert {*REFUSED} <= {each["case"] for each in RECORDING}
