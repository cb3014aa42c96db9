"""The broker's end of a live connection, driven frame by frame."""

import contextlib
import os

import pytest
from support.inproc import BOUND, SECRET, LiveWire, Wire, running, upgrade
from support.waiting import eventually

from claude_peers.broker.operations.registry import Answer
from claude_peers.core.limits import BACKLOG
from claude_peers.gateway import app
from claude_peers.gateway.connection import Deadlines
from claude_peers.wire import frames, proof

SHORT = 0.05
BIG = "x" * 250_000


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def live(broker):
    with LiveWire(broker.port) as client:
        yield client


def send(wire, number, to_id, text):
    """Send a message over a live connection and return its id."""
    body = {"from_id": "cli", "to_id": to_id, "text": text}
    return wire.call(number, "/send-message", body)[1]["message_id"]


def states(broker):
    """Return the ledger's counts; it must balance."""
    counts = broker.run(broker.store.ledger())
    assert counts.balanced
    return {state.value: count for state, count in counts.states.items()}


# Mail


def test_who_keeps_a_message_is_told_when_it_expires_and_upstreams_pollers_are_not(broker, live):
    me = live.join()["id"]
    send(live, 2, me, "hello")
    pushed = next(frame for frame in live.early if "message" in frame)["message"]
    peeked = live.call(3, "/peek-messages", {"id": me})[1]["messages"]
    polled = live.call(4, "/poll-messages", {"id": me, "ack_supported": True})[1]["messages"]
    live.call(5, "/release-messages", {"id": me, "message_ids": [pushed["id"]]})
    legacy = live.call(6, "/poll-messages", {"id": me})[1]["messages"]
    told = [view.get("expires_at") for view in (pushed, *peeked, *polled, *legacy)]
    assert told == [pushed["expires_at"]] * 3 + [None]


# The upgrade

NO_UPGRADE = {
    "no upgrade": {"Upgrade": ""},
    "another protocol": {"Upgrade": "websocket"},
    "another version": {"Upgrade": "claude-peers/9"},
    "no connection header": {"Connection": ""},
    "a connection header without it": {"Connection": "keep-alive"},
    "a body": {"Content_Length": "5"},
}


@pytest.mark.parametrize("case", NO_UPGRADE)
def test_what_is_not_the_upgrade_is_told_how_it_looks(broker, live, case):
    live.send(upgrade(broker.port, **NO_UPGRADE[case]))
    status, headers, body = live.answer()
    assert (status, headers["upgrade"]) == (426, frames.PROTOCOL)
    assert b"GET /live" in body
    assert live.rest() == b""


def test_http_1_0_cannot_upgrade(broker, live):
    live.send(upgrade(broker.port).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert live.answer()[0] == 426


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://e"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"X_Forwarded_For": "8.8.8.8"}, 401),
        ({"Authorization": "Bearer 00"}, 401),
    ],
)
def test_the_upgrade_is_guarded_like_everything_else(broker, live, headers, status):
    live.send(upgrade(broker.port, **headers))
    assert live.answer()[0] == status


def test_the_upgrade_proves_the_broker(broker, live):
    headers = live.upgrade(nonce="n-3")
    assert proof.proven_epoch(SECRET, "n-3", headers[proof.PROOF_HEADER]) == 1
    assert (headers["upgrade"], headers["connection"]) == (frames.PROTOCOL, "Upgrade")


def test_a_frame_may_come_with_the_request_for_the_upgrade(broker, live):
    live.send(upgrade(broker.port) + frames.request(1, "/register", {"pid": None}))
    assert live.answer(bare=True)[0] == 101
    assert live.read()["status"] == 200


# The first request


@pytest.mark.parametrize("operation", ["/list-peers", "/send-message", "/nothing"])
def test_the_first_request_is_the_registration(live, operation):
    live.upgrade()
    for number in range(2 * BACKLOG):  # and being told so does not use anything up
        assert live.call(number, operation)[0] == 401
    assert live.call(999, "/register")[0] == 200
    assert live.call(1000, "/list-peers")[0] == 200


def test_a_registration_that_is_refused_can_be_tried_again(live):
    live.upgrade()
    status, told = live.call(1, "/register", {"pid": "x"})
    assert (status, told["code"]) == (400, "bad_request")
    assert live.call(2, "/list-peers")[0] == 401
    assert live.call(3, "/register")[0] == 200


def test_who_registers_is_there_and_a_session(broker, live):
    joined = live.join(pid=os.getpid(), name="main")
    assert joined["name"] == "main"
    assert broker.do(lambda: broker.connections.reaches(joined["id"]))
    (session,) = broker.server.sessions
    assert (session.pid, session.peer_id) == (os.getpid(), joined["id"])


@pytest.mark.parametrize(("pid", "known"), [(7, 7), ("7", None), (None, None)])
def test_a_node_without_an_agent_only_watches(broker, live, pid, known):
    live.upgrade()
    live.frame(0, "/watch", {"pid": pid})
    eventually(lambda: broker.server.sessions, timeout=BOUND)
    assert broker.server.sessions[0].pid == known
    assert live.call(1, "/list-peers")[0] == 401
    assert broker.do(lambda: broker.app._health()["peers"]) == 0


def test_whoever_does_not_introduce_itself_is_cut_off():
    with running(deadlines=Deadlines(head=SHORT)) as broker, LiveWire(broker.port) as live:
        live.upgrade()
        with pytest.raises((EOFError, ConnectionResetError)):
            live.read()


@pytest.mark.parametrize("operation", ["/register", "/watch"])
def test_whoever_has_introduced_itself_may_be_silent(operation):
    with running(deadlines=Deadlines(head=SHORT)) as broker, LiveWire(broker.port) as live:
        live.upgrade()
        live.frame(1, operation)
        eventually(lambda: broker.server.sessions, timeout=BOUND)
        with Wire(broker.port) as other, pytest.raises((ConnectionResetError, EOFError)):
            other.until(b"x")  # by now the other's deadline, which came later, is over
        broker.do(broker.server.ping)
        while "ping" not in live.read():
            pass


def test_everybody_is_pinged_also_the_brokers_own_session_but_not_who_does_not_read(broker, live):
    live.join(pid=os.getpid())
    with LiveWire(broker.port) as watching:
        watching.upgrade()
        watching.frame(0, "/watch", {"pid": 7})
        eventually(lambda: len(broker.server.sessions) == 2, timeout=BOUND)
        broker.do(broker.server.ping)
        assert (watching.read(), live.read()) == ({"ping": 1}, {"ping": 1})
        broker.server.sessions[1].pause_writing()
        broker.do(broker.server.ping)
        assert live.read() == {"ping": 1}
        broker.do(broker.server.sessions[1].resume_writing)
        broker.do(lambda: broker.server.sessions[1].write(b'{"ping":2}\n'))
        assert watching.read() == {"ping": 2}


# Requests


def test_requests_take_effect_in_the_order_in_which_they_come(broker, live):
    me = live.join()["id"]
    for number in range(100):
        body = {"from_id": me, "to_id": me, "text": f"m{number}"}
        live.frame(100 + number, "/send-message", body)
    answers, texts = [], []
    while len(answers) < 100 or len(texts) < 100:
        frame = live.read()
        if "re" in frame:
            answers.append((frame["re"], frame["body"]["message_id"]))
        else:
            texts.append(frame["message"]["text"])
    assert [number for _, number in sorted(answers)] == [number for _, number in answers]
    assert texts == [f"m{number}" for number in range(100)]


def test_a_push_tells_who_sent_it_as_far_as_that_is_known(broker, live):
    with LiveWire(broker.port) as other:
        me = live.join(name="main", cwd="/a", summary="s")["id"]
        you = other.join()["id"]
        live.call(2, "/send-message", {"from_id": me, "to_id": you, "text": "hi"})
        pushed = other.read()
        assert (pushed["message"]["text"], pushed["message"]["verified"]) == ("hi", True)
        assert pushed["from"] == {"name": "main", "summary": "s", "cwd": "/a", "host": "here"}
        send(live, 3, you, "ho")
        assert other.read()["from"] is None


def test_what_waits_is_pushed_first_at_the_next_registration(broker, live):
    joined = live.join()
    for number in range(120):
        send(live, 10 + number, joined["id"], f"m{number}")
    with LiveWire(broker.port) as again:
        again.upgrade()
        again.frame(1, "/register", {"token": joined["token"]})
        assert again.read()["body"]["id"] == joined["id"]
        assert [again.read()["message"]["text"] for _ in range(120)] == [
            f"m{number}" for number in range(120)
        ]


def test_an_unknown_request_is_refused_and_the_connection_goes_on(live):
    live.join()
    status, told = live.call(2, "/nothing")
    assert (status, told["code"]) == (404, "not_found")
    assert live.call(3, "/list-peers")[0] == 200
    live.send(b"\n\n")
    assert live.call(4, "/list-peers")[0] == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1",
        b"\x00\xff",
        b"[]",
        b"{}",
        b'{"id":"1","op":"/list-peers"}',
        b'{"id":1,"op":"/list-peers","body":[]}',
        b'{"id":' + b"9" * 10_000 + b',"op":"/list-peers"}',
        b"[" * 100_000,
    ],
)
def test_garbage_ends_the_connection_and_nothing_behind_it_is_served(broker, live, garbage):
    me = live.join()["id"]
    late = frames.request(9, "/set-summary", {"id": me, "summary": "late"})
    live.send(garbage + b"\n" + late)
    with pytest.raises((EOFError, ConnectionResetError)):
        live.read()
    assert broker.do(lambda: broker.broker.roster.get(me).summary) == ""


def test_a_frame_of_the_largest_size_is_served_and_a_larger_one_ends_the_connection(broker, live):
    live.join()
    frame = frames.request(2, "/list-peers", {"cwd": ""})
    live.send(frame.replace(b'""', b'"' + b"x" * (frames.MOST - len(frame)) + b'"'))
    assert live.read()["re"] == 2
    with contextlib.suppress(ConnectionError):
        live.send(b"x" * (2 * frames.MOST))
    eventually(lambda: not broker.server.sessions, timeout=BOUND)


def test_a_session_with_too_many_open_requests_is_not_read_from(broker, live):
    live.join()
    gate = broker.hold("ledger")
    for number in range(2 * BACKLOG):
        live.frame(number, "/ledger")
    eventually(lambda: gate.calls == BACKLOG, timeout=BOUND)
    (session,) = broker.server.sessions
    assert not broker.do(session.transport.is_reading)
    with LiveWire(broker.port) as other:
        other.join()
        assert other.call(2, "/list-peers")[0] == 200
    assert gate.calls == BACKLOG
    gate.open()
    assert sorted(live.read()["re"] for _ in range(2 * BACKLOG)) == list(range(2 * BACKLOG))
    eventually(lambda: broker.do(session.transport.is_reading), timeout=BOUND)


# Identity


def test_a_live_connection_speaks_for_its_own_peer_alone(broker, live):
    me = live.join()["id"]
    with LiveWire(broker.port) as other:
        victim = other.join()["id"]
        for number, (operation, body) in enumerate(
            [
                ("/poll-messages", {}),
                ("/peek-messages", {}),
                ("/unregister", {}),
                ("/set-summary", {"summary": "evil"}),
                ("/ack-messages", {"message_ids": [1]}),
                ("/send-message", {"from_id": victim, "to_id": me, "text": "x"}),
            ]
        ):
            status, told = live.call(100 + number, operation, {"id": victim, **body})
            assert (status, told["code"]) == (401, "not_your_peer"), operation
        assert other.call(2, "/poll-messages", {"id": victim})[0] == 200


def test_a_token_of_another_connection_brings_back_the_same_peer(broker, live):
    joined = live.join(name="main")
    with LiveWire(broker.port) as again:
        assert again.join(token=joined["token"]) == joined
    with LiveWire(broker.port) as thief:
        assert thief.join(token="0" * 64)["id"] != joined["id"]


def test_the_newest_connection_of_a_peer_gets_its_mail(broker, live):
    joined = live.join()
    with LiveWire(broker.port) as newer:
        newer.join(token=joined["token"])
        assert b"message" not in live.rest()  # it is hung up: its peer has given it up already
        eventually(lambda: len(broker.server.sessions) == 1, timeout=BOUND)
        assert broker.do(lambda: broker.connections.reaches(joined["id"]))
        send(newer, 5, joined["id"], "one")
        assert newer.text() == "one"


def test_who_comes_back_with_its_token_gets_pushes_from_where_they_ended(broker, live):
    joined = live.join()
    send(live, 2, joined["id"], "one")
    first = live.text()
    send(live, 3, joined["id"], "two")
    with LiveWire(broker.port) as again:
        again.join(token=joined["token"], after=1)
        assert (first, again.text()) == ("one", "two")


def test_who_comes_without_its_token_gets_all_pushes_whatever_it_asks_for(broker, live):
    joined = live.join(keys=["resume:1"])
    send(live, 2, joined["id"], "one")
    live.call(3, "/unregister", {"id": joined["id"]})
    with LiveWire(broker.port) as heir:
        assert heir.join(keys=["resume:1"], after=9)["id"] == joined["id"]
        assert heir.text() == "one"


def test_what_the_older_connection_had_in_hand_is_there_for_the_newer(broker, live):
    joined = live.join()
    me = {"id": joined["id"]}
    send(live, 2, joined["id"], "one")
    poll = {**me, "ack_supported": True}
    assert len(live.call(3, "/poll-messages", poll)[1]["messages"]) == 1
    with LiveWire(broker.port) as newer:
        newer.join(token=joined["token"])
        assert len(newer.call(2, "/poll-messages", poll)[1]["messages"]) == 1


def test_registering_twice_on_one_connection_changes_nothing(broker, live):
    joined = live.join()
    again = live.call(2, "/register", {"token": joined["token"]})[1]
    assert again["id"] == joined["id"]
    assert len(broker.server.sessions) == len(broker.connections) == 1
    send(live, 3, joined["id"], "one")
    assert len(live.call(4, "/peek-messages", {"id": joined["id"]})[1]["messages"]) == 1


# The end


def test_the_end_of_a_connection_gives_back_what_was_in_hand_and_sweeps(broker, live):
    joined = live.join()
    send(live, 2, joined["id"], "one")
    live.call(3, "/poll-messages", {"id": joined["id"], "ack_supported": True})
    assert states(broker) == {"leased": 1}
    sweeps = []
    original = broker.broker.peers.sweep
    broker.broker.peers.sweep = lambda: (sweeps.append(1), original())[1]
    live.leave("reset")
    eventually(lambda: states(broker) == {"queued": 1}, timeout=BOUND)
    assert sweeps
    assert not broker.server.sessions
    assert not broker.do(lambda: broker.connections.reaches(joined["id"]))


def test_a_registration_whose_connection_ended_meanwhile_leaves_no_session(broker, live):
    gate = broker.hold("save_peer")
    live.upgrade()
    live.frame(1, "/register", {"pid": os.getpid()})
    assert gate.entered.wait(BOUND)
    live.leave("reset")
    eventually(lambda: not broker.server._upgraded, timeout=BOUND)
    gate.open()
    eventually(lambda: not broker.broker._context._background, timeout=BOUND)
    assert not broker.server.sessions
    assert len(broker.connections) == 0


def test_a_poll_whose_connection_ended_meanwhile_is_not_written(broker, live):
    joined = live.join()
    send(live, 2, joined["id"], "one")
    gate = broker.hold("hand_out")
    live.frame(3, "/poll-messages", {"id": joined["id"]})
    assert gate.entered.wait(BOUND)
    live.leave("reset")
    eventually(lambda: not broker.server.sessions, timeout=BOUND)
    gate.open()
    eventually(lambda: states(broker) == {"queued": 1} and gate.calls == 1, timeout=BOUND)


def answering(broker, monkeypatch):
    """Let /ledger answer with a lot; return what is said about the writing."""
    told = []

    async def ledger(*_):
        return Answer({"text": BIG * 40}, told.append)

    monkeypatch.setitem(app._BY_PATH, "/ledger", ledger)
    return told


def test_an_answer_counts_as_written_when_it_has_been_read(broker, monkeypatch):
    told = answering(broker, monkeypatch)
    with LiveWire(broker.port, receive=4096) as live:
        live.join()
        live.frame(2, "/ledger")
        live.frame(3, "/ledger")
        live.until(b'{"text')
        assert told == []
        live.until(b"\n")
        live.read()
        eventually(lambda: told == [True, True], timeout=BOUND)


def test_an_answer_that_nobody_read_does_not_count_as_written(broker, monkeypatch):
    told = answering(broker, monkeypatch)
    with LiveWire(broker.port, receive=4096) as live:
        live.join()
        live.frame(2, "/ledger")
        live.until(b'{"text')
        live.leave("reset")
    eventually(lambda: told == [False], timeout=BOUND)


def test_who_does_not_read_is_not_served_and_harms_nobody(broker, monkeypatch):
    told = answering(broker, monkeypatch)
    with LiveWire(broker.port, receive=4096) as slow, LiveWire(broker.port) as other:
        lazy = slow.join()["id"]
        me = other.join()["id"]
        for number in range(50):
            slow.frame(number, "/ledger")
        slow.until(b'{"text')
        assert len(told) == 0
        session = next(each for each in broker.server.sessions if each.peer_id == lazy)
        held = broker.do(session.transport.get_write_buffer_size)
        for number in range(40):
            send(other, 10 + number, lazy, BIG)
        assert broker.do(session.transport.get_write_buffer_size) <= held
        assert send(other, 99, me, "hi")
        assert len(other.call(100, "/peek-messages", {"id": lazy})[1].get("messages", ())) == 0
        pushes = 0
        while pushes < 40:  # and once it reads, it gets everything
            pushes += slow.until(b"\n").startswith(b'{"message"')
    assert states(broker) == {"queued": 41}
