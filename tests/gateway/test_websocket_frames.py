"""One WebSocket, frame by frame: the upgrade, what is no frame, and who does not read."""

import contextlib
import json
import struct

import pytest
from support.inproc import BOUND, Wire, running
from support.waiting import eventually
from support.websocket import Agent, RawSocket, frame, upgrade

from claude_peers.core.limits import BODY, PAGE
from claude_peers.core.models import State
from claude_peers.gateway.connection import Deadlines

SHORT = 0.1
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HELLO = b'{"type":"PING"}'
BIG = "x" * 100_000


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def raw(broker):
    with RawSocket(broker.port) as client:
        yield client


def join(raw):
    """Connect as somebody new; return id and token."""
    raw.send(frame(b'{"type":"CONNECT","registration":{}}'))
    told = raw.text()
    return told["agent_id"], told["token"]


# The upgrade


def test_a_hooks_token_opens_no_websocket_with_which_to_become_a_peer(raw, broker):
    _, token = broker.run(broker.broker.hooks.make("ci", "build/#"))
    raw.send(upgrade(broker.port, "/hook/build/done", Authorization=f"Bearer {token}"))
    status, headers, _ = raw.answer()
    assert (status, headers["allow"]) == (405, "POST")
    assert raw.rest() == b""
    assert broker.do(lambda: len(broker.server._upgraded)) == 0


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"X_Forwarded_For": "8.8.8.8"}, 401),
        ({"Authorization": f"Bearer {'0' * 64}"}, 401),
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": "13, 8"}, 426),
        ({"Sec_WebSocket_Key": ""}, 426),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, 426),
        ({"Sec_WebSocket_Key": "no base 64 !"}, 426),
        ({"Upgrade": ""}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Content_Length": "3"}, 426),
        ({"Transfer_Encoding": "chunked"}, 411),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/ws", "/ws?x=1"])
def test_only_a_local_program_that_asks_as_the_rfc_has_it_gets_a_websocket(
    raw, broker, path, headers, status
):
    raw.send(upgrade(broker.port, path, **headers))
    answer = raw.answer()
    assert answer[0] == status
    assert json.loads(answer[2])["remedy"].endswith((".", "`."))
    assert raw.rest() == b""
    assert broker.do(lambda: len(broker.server._upgraded)) == 0


@pytest.mark.threat("T6")
def test_a_header_cannot_be_smuggled_through_the_upgrade(raw, broker):
    twice = upgrade(broker.port).replace(b"\r\n\r\n", b"\r\nHost: evil.example\r\n\r\n")
    folded = upgrade(broker.port).replace(b"websocket\r\n", b"websocket\r\n Origin: x\r\n")
    bare = upgrade(broker.port).replace(b"websocket\r\n", b"websocket\nOrigin: https://e\r\n")
    for request in (twice, folded, bare):
        with RawSocket(broker.port) as each:
            each.send(request)
            assert each.answer()[0] == 400


@pytest.mark.threat("T15")
def test_there_is_no_federation_to_upgrade_to(raw, broker):
    raw.send(upgrade(broker.port, "/ws/federation"))
    status, _, body = raw.answer()
    assert (status, json.loads(body)["code"]) == (404, "not_found")


def test_a_post_with_an_upgrade_header_is_a_post(broker):
    with Wire(broker.port) as wire:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        assert wire.ask("/list-peers", {}, **headers) == (200, [])


def test_the_answer_proves_that_the_key_was_read(raw, broker):
    raw.send(upgrade(broker.port, Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ=="))
    status, headers, _ = raw.answer(bare=True)
    # RFC 6455, section 1.3
    assert (status, headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert "sec-websocket-extensions" not in headers


def test_frames_may_come_with_the_request(raw, broker):
    raw.send(upgrade(broker.port) + frame(HELLO))
    assert raw.answer(bare=True)[0] == 101
    assert raw.text() == {"type": "PONG"}


# Frames


def test_a_message_may_come_in_pieces_with_a_ping_in_between(raw):
    raw.open()
    raw.send(frame(HELLO[:5], final=False))
    raw.send(frame(b"hb", PING))
    assert raw.frame() == (PONG, b"hb")
    raw.send(frame(HELLO[5:9], 0, final=False) + frame(b"", 0, final=False))
    raw.send(frame(HELLO[9:], 0))
    assert raw.text() == {"type": "PONG"}


def test_a_message_may_come_byte_by_byte_and_as_bytes(raw):
    raw.open()
    for byte in frame(HELLO, BINARY):
        raw.send(bytes([byte]))
    assert raw.text() == {"type": "PONG"}


def test_a_close_frame_is_answered_with_its_code_and_the_connection_ends(raw):
    raw.open()
    raw.send(frame(struct.pack("!H", 4321) + b"bye", CLOSE))
    assert raw.frame() == (CLOSE, struct.pack("!H", 4321) + b"bye")
    assert raw.rest() == b""


NO_FRAMES = {
    "no mask": (frame(HELLO, masked=False), 1002),
    "a reserved bit": (bytes([0xC1]) + frame(HELLO)[1:], 1002),
    "a reserved opcode": (frame(HELLO, 3), 1002),
    "a reserved control opcode": (frame(b"", 11), 1002),
    "a control frame in pieces": (frame(b"x", PING, final=False), 1002),
    "a control frame that is too long": (frame(b"x" * 126, PING), 1002),
    "a continuation of nothing": (frame(HELLO, 0), 1002),
    "a new message inside another": (frame(b"{", final=False) + frame(HELLO), 1002),
    "no UTF-8": (frame(b'{"type":"\xff"}'), 1007),
    "half a character at the end": (frame(b"\xe6\xbc"), 1007),
    "a length with a sign": (bytes([0x81, 0xFF]) + b"\xff" * 12, 1002),
    "a length that could be shorter": (bytes([0x81, 0xFE]) + b"\0\5" + b"\0" * 9, 1002),
    "a close without a whole code": (frame(b"\x03", CLOSE), 1002),
    "a close with a code that is none": (frame(b"\x00\x05", CLOSE), 1002),
    "plain text": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 1002),
    "too long": (frame(b"x" * (BODY + 1)), 1009),
    "too long in pieces": (
        frame(b"x" * BODY, final=False) + frame(b"x", 0, final=False),
        1009,
    ),
}


@pytest.mark.threat("T25")
@pytest.mark.parametrize("case", NO_FRAMES)
def test_what_is_no_frame_is_not_served_and_the_connection_ends(case):
    sent, code = NO_FRAMES[case]
    with running(deadlines=Deadlines(linger=SHORT)) as broker, RawSocket(broker.port) as raw:
        raw.open()
        join(raw)
        raw.send(sent)
        assert raw.closed() == code
        with contextlib.suppress(ConnectionError):
            raw.send(frame(HELLO) * 3)
            assert raw.rest() == b""
        eventually(lambda: not broker.server._upgraded, timeout=BOUND)


def test_a_message_of_the_largest_size_is_served(raw):
    raw.open()
    raw.send(frame(HELLO[:-1] + b" " * (BODY - len(HELLO)) + b"}"))
    assert raw.text() == {"type": "PONG"}


def test_pieces_without_content_cost_nothing(raw, broker):
    raw.open()
    raw.send(frame(HELLO, final=False) + frame(b"", 0, final=False) * 10_000 + frame(b"", 0))
    assert raw.text() == {"type": "PONG"}


# Who does not read, or says nothing


def test_who_does_not_read_has_a_page_in_hand_and_gets_the_rest_when_it_reads(broker):
    with Wire(broker.port) as http, RawSocket(broker.port, receive=4096) as raw:
        raw.open()
        me, _ = join(raw)
        ids = []
        for number in range(6 * PAGE):
            body = {"from_id": "cli", "to_id": me, "text": f"{number} {BIG}"}
            ids.append(http.ask("/send-message", body)[1]["message_id"])
        leased = broker.run(broker.store.ledger()).states[State.LEASED]
        assert leased <= 3 * PAGE  # what the system's buffers took, and the page after
        (socket,) = broker.server._upgraded
        assert socket.transport.get_write_buffer_size() < 2 * len(BIG)
        got = []
        for _ in ids:
            got.append(raw.text()["message"])
            raw.send(frame(json.dumps({"type": "ACK", "message_id": got[-1]["id"]}).encode()))
        assert [each["id"] for each in got] == ids
        assert {len(each["text"]) - len(BIG) for each in got} <= {2, 3, 4}


def test_quality_0_that_was_not_written_whole_is_unread_again(broker):
    from gateway.test_websocket import accept

    with RawSocket(broker.port, receive=4096) as raw:
        raw.open()
        me, _ = join(raw)
        ids = [accept(broker, me, BIG, qos=0) for _ in range(PAGE)]
        (socket,) = broker.server._upgraded
        eventually(lambda: socket.clogged, timeout=BOUND)
        raw.leave("reset")
        eventually(lambda: not broker.server._upgraded, timeout=BOUND)

    def counts():
        return broker.run(broker.store.ledger()).states

    eventually(lambda: State.LEASED not in counts(), timeout=BOUND)
    assert counts()[State.QUEUED] >= 1
    assert sum(counts().values()) == len(ids)


def sent_until_it_blocks(raw, data, *, most):
    """Return how often data could be sent before nobody read it any more."""
    for sent in range(most):
        try:
            raw.send(data)
        except TimeoutError:
            return sent
    return most


def test_a_flood_of_pings_that_reads_no_answer_is_not_read_further(broker):
    with RawSocket(broker.port, receive=4096) as raw:
        raw.open()
        raw.socket.settimeout(SHORT)
        flood = frame(b"x" * 125, PING) * 1000
        sent = sent_until_it_blocks(raw, flood, most=1000)
        assert sent * len(flood) < 64 * 1024 * 1024
        (socket,) = broker.server._upgraded
        assert socket.transport.get_write_buffer_size() < 16 * 1024 * 1024
        with Wire(broker.port) as other:
            assert other.ask("/list-peers")[0] == 200


def test_who_is_silent_is_pinged_and_stays_while_it_answers():
    with running(deadlines=Deadlines(silence=SHORT)) as broker, RawSocket(broker.port) as raw:
        raw.open()
        join(raw)
        for _ in range(5):
            assert raw.frame() == (PING, b"")
            raw.send(frame(b"", PONG))
        assert raw.frame() == (PING, b"")
        assert raw.closed() == 1001
        assert raw.rest() == b""  # which it does not wait for for ever


def test_who_never_says_who_it_is_is_closed():
    with running(deadlines=Deadlines(head=SHORT)) as broker, RawSocket(broker.port) as raw:
        raw.open()
        raw.send(frame(HELLO))
        assert raw.text() == {"type": "PONG"}
        assert raw.closed() == 1008


def test_who_does_not_answer_a_close_is_cut_off():
    with running(deadlines=Deadlines(linger=SHORT)) as broker, RawSocket(broker.port) as raw:
        raw.open()
        raw.send(frame(HELLO, masked=False))
        assert raw.closed() == 1002
        assert raw.rest() == b""


def test_a_broker_that_cannot_serve_a_frame_says_so_and_nothing_is_lost(broker, monkeypatch):
    with Wire(broker.port) as http, Agent(broker.port) as agent:
        agent.join()
        body = {"from_id": "cli", "to_id": agent.id, "text": "x"}
        number = http.ask("/send-message", body)[1]["message_id"]
        agent.message()

        async def broken(*_given, **_named):
            raise OSError("full")

        monkeypatch.setattr(broker.broker.peers, "heartbeat", broken)
        agent.send("PING")
        assert agent.closed()[0] == 1011
        monkeypatch.undo()
        eventually(
            lambda: broker.run(broker.store.message(number)).state is State.QUEUED, timeout=BOUND
        )
