"""Our broker against the recorded WebSocket conversation of agentmesh 0.4, frame by frame.

What goes over HTTP in between is sent as its clients send it, with the token of the peer it is
about. Of federation there is none here: its socket is refused, and what is said on it goes nowhere.
"""

import json
from typing import Any

import pytest
from support import http
from support.golden import Bindings, parse, session
from support.inproc import Wire, running
from support.machine import Machine
from support.websocket import Agent, RawSocket, frame, upgrade
from wire.test_golden_agentmesh import Mesh, theirs

from claude_peers.broker import wills
from claude_peers.gateway.connection import Deadlines

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
OTHERWISE = {
    "expires_at": "every message has an end here, and says when",
    "retry_count": "counted by hand-outs, also of a take-over",
    "signature": "compared where messages are signed",
}
"""Fields of a message that are ours."""
CODES = {1000: (1000, 1008)}
"""Their refusals are closed with 1000, which their own client takes for a goodbye (B4-18)."""
ELSEWHERE: dict[str, str] = {
    "send-after-old-socket-closed": "the second socket is still there and gets it (B4-13)",
    "connect-lwt-partial": "a will without a text has an empty one; it is no error",
    "lwt-partial-abort": "and so it is published",
}
"""What we answer otherwise; our frames instead, by their types."""
OURS = {
    "send-after-old-socket-closed": ["MESSAGE"],
    "connect-lwt-partial": ["CONNECTED"],
    "lwt-partial-abort": ["MESSAGE"],
}


FEDERATION = "f"
"""The socket of another broker."""
RECORDING = "ws-agentmesh-0.4.jsonl"


NOTHING = {"messages": []}
POLLED = ("what a socket has had or has in hand, no poll gets as well", NOTHING)
ONLINE = ("the second socket counts, whatever became of the first (B4-13)", None)
ANSWERS: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(
        (
            *("poll-while-connected", "poll-drain", "poll-drain-2", "poll-drain-3"),
            *("lwt-retained-poll-A", "poll-drain-B"),
        ),
        POLLED,
    ),
    **dict.fromkeys(
        ("list-online-after-old-socket-closed", "lwt-agent-still-listed", "after-disconnect-list"),
        ONLINE,
    ),
    "fed-remote-listed": ("the same, and who was refused for its will is here", None),
    "fed-status": ("no other broker is connected", {"peers": [], "server_peers": []}),
    "fed-send-to-remote": ("nobody has this id", {"ok": False, "code": "peer_not_found"}),
}
"""Requests that are answered otherwise than recorded: why, and what of our answer is agreed."""


class Conversation:
    """The sockets of one recorded session.

    Attributes:
        different: requests that were answered otherwise, as it was agreed.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.bindings = Bindings()
        self.sockets: dict[str, RawSocket] = {}
        self.different: set[str] = set()
        self._mesh = Mesh(port, self.bindings)

    def close(self) -> None:
        for each in self.sockets.values():
            each.socket.close()

    def complaints(self, line: dict[str, Any]) -> list[str]:
        """Replay one line; return what came out otherwise than agreed."""
        case = line["case"]
        if line["in"] is None:  # nothing is done, and what came was looked at before
            return []
        if line["conn"] == FEDERATION:
            return self._federation(line)
        done = self._do(line["conn"], line["in"])
        if "http_response" in line and (found := self._answered(line, done)):
            return found
        socket = self.sockets[line["conn"]]
        wanted = [each for each in line["out"] if each != "HTTP/1.1 101 Switching Protocols"]
        if case in ELSEWHERE:
            kinds = [self._frame(socket)[1]["type"] for _ in OURS[case]]
            return [] if kinds == OURS[case] else [f"{kinds}, agreed {OURS[case]}"]
        found = [complaint for each in wanted for complaint in self._compare(each, socket)]
        return found or self._nothing_else(wanted, socket)

    # What is sent

    def _do(self, conn: str, given: Any) -> Any:
        socket = self.sockets.get(conn)
        match given:
            case {"open": path}:
                if socket is not None:
                    socket.socket.close()
                socket = self.sockets[conn] = RawSocket(self.port)
                socket.open(path)
            case {"http": request}:
                return self._ask(request)
            case {"abort": other}:
                self.sockets[other].leave("reset")
            case {"close-frame": other, "code": code}:
                self.sockets[other].send(frame(code.to_bytes(2) + b"bye", CLOSE))
                with self.sockets.pop(other) as closed:
                    assert self._frame(closed) == (CLOSE, (code, "bye"))
                    assert closed.rest() == b""
            case {"binary": digits}:
                assert socket is not None
                socket.send(frame(bytes.fromhex(digits), BINARY))
            case {"ws-ping": text}:
                assert socket is not None
                socket.send(frame(text.encode(), PING))
                assert socket.frame() == (PONG, text.encode())
            case str(text):
                assert socket is not None
                socket.send(frame(self._fill(text).encode()))
        return None

    def _federation(self, line: dict[str, Any]) -> list[str]:
        """Ask for another broker's socket, or go on without it."""
        match line["in"]:
            case {"open": path}:
                with RawSocket(self.port) as socket:
                    socket.send(upgrade(self.port, path))
                    status, _, body = socket.answer()
                right = (status, b"no federation" in body) == (404, True)
                return [] if right else [f"{status} {body!r}"]
            case {"http": request}:
                return self._answered(line, self._ask(request))
        return []  # it would be said on the socket that is not there

    def _fill(self, text: str) -> str:
        self.bindings.values.setdefault("<mid:1>", "1")  # acknowledged before it was ever seen
        return self.bindings.fill(text.replace("<token-hash:", "<digest-of-token:"))

    def _ask(self, request: dict[str, Any]) -> http.Response:
        body = self.bindings.fill(request["body_text"])
        told = json.loads(body or "{}")
        peer = told.get("from_id") or told.get("id")
        names = {value: name for name, value in self.bindings.values.items()}
        token = self.bindings.values.get(names.get(peer, "").replace("<id:", "<token:"))
        headers = dict(request["headers"])
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if request["path"] == "/poll-messages":
            self._take(peer, headers)
        path = self.bindings.fill(request["path"])
        return http.request(self.port, request["method"], path, body=body.encode(), headers=headers)

    def _take(self, peer: str, headers: dict[str, str]) -> None:
        """Let a poll consume what a socket has in hand, as it does there."""
        numbers = [int(v) for name, v in self.bindings.values.items() if name.startswith("<mid")]
        body = {"id": peer, "message_ids": numbers}
        assert http.post(self.port, "/ack-messages", body, headers).status == 200

    def _answered(self, line: dict[str, Any], answer: http.Response) -> list[str]:
        """Compare what a request was answered with."""
        found = list(self._mesh.differences(answer, line["http_response"]))
        if not found or line["case"] not in ANSWERS:
            return found
        self.different.add(line["case"])
        _, ours = ANSWERS[line["case"]]
        return [] if ours is None else list(self.bindings.differences(ours, answer.json()))

    # What comes back

    def _frame(self, socket: RawSocket) -> tuple[int, Any]:
        opcode, payload = socket.frame()
        if opcode == CLOSE:
            return opcode, (int.from_bytes(payload[:2]), payload[2:].decode())
        return opcode, json.loads(payload) if opcode == TEXT else payload

    def _compare(self, wanted: Any, socket: RawSocket) -> list[str]:
        match wanted:
            case {"eof": True}:
                return [] if socket.rest() == b"" else ["does not end"]
            case {"close": code, "reason": reason}:
                _, told = self._frame(socket)
                right = told[0] in CODES.get(code, (code,)) and reason in ("", told[1])
                return [] if right else [f"closed with {told}, recorded {wanted}"]
            case str(text):
                recorded = parse(text.replace("<token-hash:", "<token:"))
                _, told = self._frame(socket)
                if recorded["type"] == "ERROR":
                    del recorded["message"]  # its engine's words, or ours
                message = recorded.get("message", {})
                keep(message)
                return list(self.bindings.differences(recorded, told))
        raise AssertionError(wanted)

    def _nothing_else(self, wanted: list[Any], socket: RawSocket) -> list[str]:
        if socket.socket.fileno() < 0 or {"eof": True} in wanted:
            return []
        socket.send(frame(b"fence", PING))
        found = self._frame(socket)
        return [] if found == (PONG, b"fence") else [f"{found} came as well"]


def keep(message: dict[str, Any]) -> None:
    """Keep of a recorded message what ours is to have the same of."""
    for name in message.keys() - (theirs(message) - OTHERWISE.keys()):
        del message[name]


def replayed(port: int, name: str) -> set[str]:
    """Replay a session; return the requests that were answered otherwise, as it was agreed."""
    conversation = Conversation(port)
    try:
        told = [
            f"{each['case']}: {complaint}"
            for each in session(RECORDING, name)
            for complaint in conversation.complaints(each)
        ]
    finally:
        conversation.close()
    assert not told, "\n".join(told)
    return conversation.different


def test_frames_are_as_recorded_but_for_the_listed_differences(monkeypatch):
    monkeypatch.setattr(wills, "RECONNECT", 0.0)
    cases = {each["case"] for each in session(RECORDING, "main")}
    assert ELSEWHERE.keys() == OURS.keys() <= cases
    with running(deadlines=Deadlines(linger=0.1), deliveries=4) as broker:
        assert replayed(broker.port, "main") == ANSWERS.keys()


def test_signed_frames_are_as_recorded(machine: Machine):
    machine.serve(
        AGENTMESH_FLEET_SECRET="golden-secret",
        AGENTMESH_FLEET_ID="gold",
        AGENTMESH_MAX_RETRIES="3",
    )
    assert replayed(machine.port, "secret") == set()


@pytest.mark.parametrize("field", OTHERWISE)
def test_a_message_has_the_field_all_the_same(field):
    with running() as broker, Wire(broker.port) as wire, Agent(broker.port) as agent:
        wire.ask("/send-message", {"from_id": "cli", "to_id": agent.join(), "text": "x"})
        assert field in agent.message()
