"""All connections together: how many, what the broker says of itself, and how they end."""

import contextlib
import json
import socket

import pytest
from support import http
from support.inproc import BOUND, SECRET, LiveWire, Wire, head, post, running, upgrade
from support.waiting import eventually
from support.websocket import Agent

from claude_peers.gateway.places import EACH, LATER, SPARE, Places, share
from claude_peers.wire import proof

SHORT = 0.05
"""Seconds of a deadline that a test waits for."""


def places(**some):
    return Places(**{"requests": 100, "streams": 100, "together": 300, **some})


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def wire(broker):
    with Wire(broker.port) as client:
        yield client


def test_a_newcomer_takes_the_place_of_an_idle_connection():
    with (
        running(places=places(requests=2)) as broker,
        Wire(broker.port) as idle,
        Wire(broker.port) as busy,
    ):
        assert idle.ask("/list-peers")[0] == 200
        gate = broker.hold("ledger")
        busy.send(post(broker.port, "/ledger", {}))
        assert gate.entered.wait(BOUND)
        with Wire(broker.port) as newcomer:
            assert newcomer.ask("/list-peers")[0] == 200
            assert idle.rest() == b""
        gate.open()
        assert busy.answer()[0] == 200


def test_a_newcomer_is_turned_away_when_everybody_is_busy():
    with running(places=places(requests=1)) as broker, Wire(broker.port) as busy:
        gate = broker.hold("ledger")
        busy.send(post(broker.port, "/ledger", {}))
        assert gate.entered.wait(BOUND)
        with Wire(broker.port) as newcomer, pytest.raises((ConnectionResetError, EOFError)):
            newcomer.until(b"x")
        gate.open()
        assert busy.answer()[0] == 200


@pytest.mark.threat("T24")
def test_other_users_cannot_take_all_the_places():
    with running(uid=4_000_000, places=places(requests=3, strangers=2)) as broker:
        wires = [Wire(broker.port) for _ in range(2)]
        eventually(lambda: len(broker.server._connections) == 2, timeout=BOUND)
        with Wire(broker.port) as third, pytest.raises((ConnectionResetError, EOFError)):
            third.until(b"x")
        for wire in wires:
            wire.send(head(broker.port, "GET", "/health"))
            assert wire.answer()[0] == 401
            wire.socket.close()


# Connections that stay


def stay(broker, kind):
    """Ask for a connection that stays."""
    wire = Wire(broker.port)
    match kind:
        case "live":
            wire.send(upgrade(broker.port))
        case "events":
            wire.send(head(broker.port, "GET", f"/events?id={wire.ask('/register')[1]['id']}"))
        case "websocket":
            wire.send(websocket(broker.port, wire.ask("/register")[1]["token"]))
    return wire


def websocket(port, token=""):
    """Return the request for a WebSocket."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    headers |= {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    return head(port, "GET", "/ws", **headers, **shown)


def refused(wire):
    """Whether there was no place, which is said with the remedy."""
    status, headers, _ = wire.answer(bare=True)
    if status in (101, 200):
        return False
    told = json.loads(wire.rest())
    assert (status, told["code"], headers["retry-after"]) == (503, "crowded", str(round(LATER)))
    assert "ulimit -Hn" in told["remedy"] and "no place for one more" in told["error"]
    return True


@pytest.mark.threat("T24")
@pytest.mark.parametrize("kind", ["events", "websocket"])
def test_streams_are_so_many_and_sessions_of_this_machine_have_places_of_their_own(kind):
    with running(places=places(streams=2, together=20)) as broker, contextlib.ExitStack() as open_:
        wires = [open_.enter_context(stay(broker, kind)) for _ in range(3)]
        assert [refused(each) for each in wires] == [False, False, True]
        other = "events" if kind == "websocket" else "websocket"
        assert refused(open_.enter_context(stay(broker, other)))
        sessions = [open_.enter_context(LiveWire(broker.port)) for _ in range(4)]
        assert len({each.join()["id"] for each in sessions}) == 4
        assert open_.enter_context(Wire(broker.port)).ask("/list-peers")[0] == 200
        wires[0].socket.close()
        eventually(lambda: len(broker.server._upgraded) == 5, timeout=BOUND)
        assert not refused(open_.enter_context(stay(broker, kind)))


def test_all_together_are_no_more_than_the_system_lets_be_open():
    with running(places=places(together=3)) as broker, contextlib.ExitStack() as open_:
        told = [refused(open_.enter_context(stay(broker, "live"))) for _ in range(4)]
        assert told == [False, False, False, True]


@pytest.mark.threat("T24")
def test_one_token_has_so_many_streams_and_others_have_places():
    with running(places=places(streams=3 * EACH)) as broker, contextlib.ExitStack() as open_:
        token = open_.enter_context(Wire(broker.port)).ask("/register")[1]["token"]
        uid = broker.server._uid
        told = []
        for other in [True] * (EACH + 1) + [False]:
            broker.do(setattr, broker.server, "_uid", uid + other)
            wire = open_.enter_context(Wire(broker.port))
            wire.send(websocket(broker.port, token))
            told.append(refused(wire))
        assert told == [False] * EACH + [True, True]
        assert not refused(open_.enter_context(stay(broker, "events")))
        assert not refused(open_.enter_context(stay(broker, "websocket")))


@pytest.mark.threat("T24")
def test_websockets_that_say_nothing_have_half_of_the_streams_until_they_introduce_themselves():
    with running(places=places(streams=4)) as broker, contextlib.ExitStack() as open_:
        agents = [open_.enter_context(Agent(broker.port)) for _ in range(2)]
        wire = open_.enter_context(Wire(broker.port))
        wire.send(websocket(broker.port))
        assert refused(wire)
        assert not refused(open_.enter_context(stay(broker, "websocket")))
        for each in agents:
            each.join()
        last = open_.enter_context(Wire(broker.port))
        last.send(websocket(broker.port))
        assert not refused(last)


@pytest.mark.threat("T24")
def test_live_connections_of_another_user_are_streams_of_strangers():
    with running(places=places(strangers=2)) as broker, contextlib.ExitStack() as open_:
        tokens = [
            open_.enter_context(Wire(broker.port)).ask("/register")[1]["token"] for _ in "abc"
        ]
        broker.do(setattr, broker.server, "_uid", broker.server._uid + 1)
        told = []
        for token in tokens:
            wire = open_.enter_context(Wire(broker.port))
            wire.send(upgrade(broker.port, Authorization=f"Bearer {token}"))
            told.append(refused(wire))
        assert told == [False, False, True]


@pytest.mark.parametrize("files", [0, 40, 256, 1024, 20_000, 1 << 20])
def test_whatever_may_be_open_is_shared_so_that_sessions_have_as_much_as_all_streams(files):
    found = share(files)
    assert 0 < found.requests <= 512
    assert 0 < found.streams <= 4096
    assert found.together - found.requests - found.streams >= found.streams
    assert found.together <= max(64, files - SPARE)


@pytest.mark.fault("F31")
def test_a_broker_without_free_descriptors_loses_nothing_and_recovers(machine):
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux lets one limit another process")
    node = machine.serve()
    you = machine.post("/register", {})["id"]
    assert machine.post("/send-message", {"from_id": "cli", "to_id": you, "text": "a"})["ok"]
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (40, 40))
    crowd = [socket.create_connection(("127.0.0.1", machine.port)) for _ in range(100)]
    for each in crowd:
        each.close()
    assert http.get(machine.port, "/health", timeout=BOUND).status == 200
    assert len(machine.post("/peek-messages", {"id": you})["messages"]) == 1
    assert machine.post("/ledger")["balanced"]


# What the broker says of itself


def test_the_broker_proves_itself_to_whoever_asks_with_a_nonce(broker, wire):
    wire.send(head(broker.port, "GET", "/health", **{proof.NONCE_HEADER: "n-7"}))
    headers = wire.answer()[1]
    assert proof.proven_epoch(SECRET, "n-7", headers[proof.PROOF_HEADER]) == broker.broker.epoch
    challenge = headers[proof.CHALLENGE_HEADER]
    wire.send(head(broker.port, "GET", "/health"))
    assert proof.PROOF_HEADER not in wire.answer()[1]
    with Wire(broker.port) as other:
        other.send(head(broker.port, "GET", "/", **{proof.NONCE_HEADER: "n-7"}))
        assert other.answer()[1][proof.CHALLENGE_HEADER] != challenge


def test_an_answered_challenge_is_good_for_one_request_on_its_connection(broker, wire):
    held = []
    broker.broker.step_down = held.append
    wire.send(head(broker.port, "GET", "/health", **{proof.NONCE_HEADER: "n"}))
    challenge = wire.answer()[1][proof.CHALLENGE_HEADER]
    shown = {proof.AUTH_HEADER: proof.client_proof(SECRET, challenge)}
    assert wire.ask("/admin/step-down", {"hold_ms": 1500}, **shown)[0] == 200
    assert wire.ask("/admin/step-down")[1]["code"] == "secret_required"
    with Wire(broker.port) as other:
        assert other.ask("/admin/step-down", **shown)[0] == 401
    assert held == [1.5]


def test_status_is_health_and_what_the_node_tells(broker, wire):
    wire.send(head(broker.port, "GET", "/status?x=1"))
    told = json.loads(wire.answer()[2])
    assert told["status"] == "ok"
    assert (told["sessions"], told["epoch"], told["peers"]) == (7, 1, 0)


@pytest.mark.bug("B4-20")
@pytest.mark.threat("T2", "T5")
def test_no_answer_lets_a_web_page_read_it_or_says_what_serves_it(broker, wire):
    for request in (head(broker.port, "GET", "/"), head(broker.port, "GET", "/", Origin="null")):
        wire.send(request)
        headers = wire.answer()[1]
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers
        assert headers["cache-control"] == "no-store"


def test_a_fault_of_ours_tells_nothing_about_itself(broker, wire, caplog):
    async def ledger():
        raise ZeroDivisionError("the canary")

    broker.store.ledger = ledger
    status, told = wire.ask("/ledger")
    assert (status, told["code"]) == (500, "internal")
    assert "canary" not in str(told)
    assert "the canary" in caplog.text
    assert wire.ask("/list-peers")[0] == 200


# The end


def test_a_closing_broker_answers_what_it_has_begun_and_sends_the_rest_on(broker, wire):
    gate = broker.hold("ledger")
    with Wire(broker.port) as late, Wire(broker.port) as begun, LiveWire(broker.port) as live:
        live.join()
        begun.send(post(broker.port, "/list-peers", {})[:-2])
        wire.send(post(broker.port, "/ledger", {}))
        assert gate.entered.wait(BOUND)
        ending = broker.start(broker.server.stop_accepting(within=BOUND))
        eventually(lambda: broker.app.closing, timeout=BOUND)
        assert late.ask("/list-peers")[1]["code"] == "not_leader"
        assert late.rest() == b""
        begun.send(b"{}")
        status, headers, _ = begun.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert live.call(2, "/list-peers")[0] == 503
        assert not ending.done()
        gate.open()
        answer = wire.answer()
        assert (answer[0], answer[1]["connection"]) == (200, "close")
        ending.result(BOUND)
        broker.do(broker.server.hang_up)
        assert live.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        Wire(broker.port)


def test_a_closing_broker_waits_no_longer_than_it_was_told(broker, wire):
    gate = broker.hold("ledger")
    wire.send(post(broker.port, "/ledger", {}))
    assert gate.entered.wait(BOUND)
    broker.run(broker.server.stop_accepting(within=SHORT))
    broker.do(broker.server.hang_up)
    assert wire.rest() == b""


def test_connections_that_have_said_nothing_yet_end_with_the_broker(broker, wire):
    with LiveWire(broker.port) as live:
        live.upgrade()
        eventually(lambda: len(broker.server._connections) == 1, timeout=BOUND)
        broker.run(broker.server.stop_accepting(within=SHORT))
        broker.do(broker.server.hang_up)
        assert live.rest() == wire.rest() == b""
