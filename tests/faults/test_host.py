"""The session that happens to lead: its own agent's tools work whatever others do to its broker."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support import http as strangers
from support.letters import send
from support.machine import Machine
from support.mcp import RpcError, Session
from support.waiting import eventually

from claude_peers.core.limits import BODY
from claude_peers.session.lines import LONGEST
from claude_peers.tools.render import PAGE_SIZE

PEERS = 1000
BUSY = 32
CALLS = 10
SLOW = 12
LETTER = 100_000
LETTERS = 60
"""Six megabytes: more than any buffer on the way to a reader."""
REMEDY = "Put the long part in a file and send its path."
SEED = {"cwd": "/proj/crowd", "summary": "busy with the crowd's work"}
UNLIMITED = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


class Pair:
    """The session that leads, and another one."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.leader, self.other = machine.session(), machine.session()
        self.leader.list_prompts()
        self.leader_id = machine.peer_id(self.leader)
        self.other.list_prompts()
        self.other_id = machine.peer_id(self.other)
        assert machine.leader() is self.leader

    def use_every_tool(self, turn: int) -> None:
        """Let the leader's agent call its tools once, and see that each does what it says."""
        told = ok(self.leader, "list_peers", scope="machine")
        assert self.other_id in told
        assert len(told) <= PAGE_SIZE + 1000  # what it says of the rest

        ok(self.leader, "send_message", to_id=self.other_id, message=f"from-leader-{turn}.")
        assert f"from-leader-{turn}." in ok(self.other, "check_messages")

        ok(self.other, "send_message", to_id=self.leader_id, message=f"to-leader-{turn}.")
        assert f"to-leader-{turn}." in ok(self.leader, "check_messages")
        assert ok(self.leader, "check_messages") == "No new messages."

        assert f"leading {turn}" in ok(self.leader, "set_summary", summary=f"leading {turn}")
        listed = {peer["id"]: peer["summary"] for peer in self.machine.peers()}
        assert listed[self.leader_id] == f"leading {turn}"


@pytest.fixture
def pair(machine: Machine, unmeasured: None) -> Pair:
    machine.environ.update(UNLIMITED)
    return Pair(machine)


def ok(session: Session, tool: str, **arguments: Any) -> str:
    text, failed = session.call(tool, **arguments)
    assert not failed, text
    return text


class Client(threading.Thread):
    """One connection that sends to a peer of its own, and polls for it, until it is told to end.

    Attributes:
        sent: texts that were accepted.
        taken: texts that were handed out.
    """

    def __init__(self, port: int, sender: str, reader: str, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.sent: list[str] = []
        self.taken: list[str] = []
        self.failed: list[str] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._sender = sender
        self._reader = reader
        self._end = end
        self.start()

    def run(self) -> None:
        try:
            while not self._end.is_set():
                self._send(f"{self._reader} {len(self.sent)}")
                self._poll()
            self._poll()
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failed.append(repr(error))
        finally:
            self._connection.close()

    def _send(self, text: str) -> None:
        mail = {"from_id": self._sender, "to_id": self._reader, "text": text}
        assert self._ask("/send-message", mail)["ok"]
        self.sent.append(text)

    def _poll(self) -> None:
        found = self._ask("/poll-messages", {"id": self._reader})["messages"]
        self.taken += [each["text"] for each in found]

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        told = answer.read()
        assert answer.status == 200, told
        return json.loads(told)


def joined(machine: Machine, count: int) -> list[str]:
    """Register peers of which no process is known, and return their ids."""
    return [str(machine.post("/register", SEED)["id"]) for _ in range(count)]


@contextmanager
def busy(machine: Machine, ids: list[str]) -> Iterator[list[Client]]:
    """Keep connections busy meanwhile."""
    end = threading.Event()
    pairs = zip(ids[:BUSY], ids[BUSY : 2 * BUSY], strict=True)
    clients = [Client(machine.port, sender, reader, end) for sender, reader in pairs]
    try:
        eventually(lambda: all(len(each.taken) > 1 for each in clients), timeout=60, what="load")
        yield clients
    finally:
        end.set()
        for each in clients:
            each.join(60)


@pytest.mark.fault("F32")
def test_the_leaders_own_tools_work_while_a_thousand_peers_send_and_poll(pair: Pair):
    ids = joined(pair.machine, PEERS)
    with busy(pair.machine, ids) as clients:
        for turn in range(CALLS):
            pair.use_every_tool(turn)
        assert f"Found {PEERS + 1} peer(s)" in ok(pair.leader, "list_peers")
        assert pair.machine.leader() is pair.leader

    assert [each.failed for each in clients] == [[]] * BUSY
    assert [each.taken for each in clients] == [each.sent for each in clients]
    ledger = pair.machine.post("/ledger")
    assert ledger["balanced"]
    assert ledger["accepted"] == 2 * CALLS + sum(len(each.sent) for each in clients)


@pytest.mark.fault("F28")
@pytest.mark.parametrize("size", [300_000, 2_000_000])
def test_a_message_over_the_limit_is_refused_with_a_sentence(pair: Pair, size):
    text, failed = pair.leader.call("send_message", to_id=pair.other_id, message="x" * size)

    assert failed
    assert " bytes" in text
    assert REMEDY in text
    pair.use_every_tool(0)


@pytest.mark.fault("F28")
def test_a_message_of_ten_megabytes_is_refused_with_a_sentence(pair: Pair):
    with pytest.raises(RpcError, match=f"more than {LONGEST} bytes. {REMEDY}"):
        pair.leader.call("send_message", to_id=pair.other_id, message="x" * 10_000_000)
    pair.use_every_tool(0)


@pytest.mark.fault("F28")
def test_a_body_of_ten_megabytes_is_refused_and_nobody_waits(pair: Pair):
    mail = {"from_id": pair.leader_id, "to_id": pair.other_id, "text": "x" * 10_000_000}
    answer = strangers.post(pair.machine.port, "/send-message", mail)

    assert answer.status == 413
    assert str(BODY) in answer.json()["error"]
    pair.use_every_tool(0)


@pytest.mark.fault("F27")
def test_slow_readers_do_not_hold_up_the_leaders_tools_and_lose_nothing(pair: Pair):
    machine = pair.machine
    readers = joined(machine, SLOW)
    texts = [f"{number:03}" + "x" * LETTER for number in range(LETTERS)]
    for text in texts:
        send(machine, readers[0], text)
    with ExitStack() as held:
        for reader in readers:
            slow = held.enter_context(socket.socket())
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", machine.port))
            slow.sendall(poll_of(machine.port, reader))
            if reader is readers[0]:
                assert slow.recv(1) == b"H"  # it has been answered, and reads no further
        pair.other.stop_reading()
        ok(pair.leader, "send_message", to_id=pair.other_id, message="whenever you read again")
        pair.other.resume_reading()
        for turn in range(CALLS):
            pair.use_every_tool(turn)

    taken: list[str] = []

    def all_taken() -> bool:
        poll = {"id": readers[0], "ack_supported": True}
        found = machine.post("/poll-messages", poll)["messages"]
        taken.extend(each["text"] for each in found)
        return len(taken) >= LETTERS

    eventually(all_taken, what="what the slow reader left")
    assert taken == texts
    assert machine.post("/ledger")["balanced"]


def poll_of(port: int, peer_id: str) -> bytes:
    body = json.dumps({"id": peer_id}).encode()
    head = (
        f"POST /poll-messages HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.fault("F26")
def test_a_sender_that_floods_is_refused_and_the_leaders_tools_work(machine: Machine, unmeasured):
    pair = Pair(machine)
    flooder, flooded = joined(machine, 2)
    mail = {"from_id": flooder, "to_id": flooded, "text": "flood"}
    answers = [strangers.post(machine.port, "/send-message", mail) for _ in range(200)]

    refused = [each for each in answers if each.json().get("ok") is not True]
    assert 100 < len(refused) < 200
    assert "Wait " in refused[-1].text
    pair.use_every_tool(0)
    assert len(machine.post("/poll-messages", {"id": flooded})["messages"]) == 200 - len(refused)
