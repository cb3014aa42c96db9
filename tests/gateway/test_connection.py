"""One connection, driven byte by byte: framing, answers and deadlines."""

import json
import threading

import pytest
from support.inproc import BOUND, Wire, head, post, running
from support.waiting import PAUSE, eventually

from claude_peers.broker.operations.registry import Answer
from claude_peers.core.limits import BODY
from claude_peers.gateway import app
from claude_peers.gateway.app import Response
from claude_peers.gateway.connection import Deadlines
from claude_peers.gateway.framing import HEAD

SHORT = 0.05
"""Seconds of a deadline that a test waits for."""
LARGE = "x" * 16_000_000
"""Far more than a socket's buffers hold."""


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def wire(broker):
    with Wire(broker.port) as client:
        yield client


def written(monkeypatch, broker, body):
    """Let GET /health answer `body`; return a list of what is said about its writing."""
    told = []

    async def answer(_caller, _head, _body):
        return Response(status=200, body=body.encode(), written=told.append)

    monkeypatch.setattr(broker.app, "answer", answer)
    return told


def eventually_cut(wire):
    """Send a byte whenever there is nothing to read, until the other side ends; yield how many."""
    wire.socket.settimeout(PAUSE)
    for sent in range(HEAD):
        try:
            wire.send(b"x")
            if not wire.socket.recv(1):
                return
        except TimeoutError:
            yield sent
        except ConnectionError:
            return
    pytest.fail("it was never cut")


def test_a_connection_takes_one_request_after_the_other(broker, wire):
    for _ in range(3):
        wire.send(head(broker.port, "GET", "/health"))
        status, headers, body = wire.answer()
        assert (status, headers["content-type"]) == (200, "application/json;charset=utf-8")
        assert "connection" not in headers
        assert json.loads(body)["status"] == "ok"


def test_requests_sent_in_one_go_are_answered_in_order(broker, wire):
    texts = [f"m{number}" for number in range(50)]
    peer = wire.ask("/register", {})[1]["id"]
    bodies = [{"from_id": "cli", "to_id": peer, "text": text} for text in texts]
    wire.send(b"".join(post(broker.port, "/send-message", body) for body in bodies))
    ids = [json.loads(wire.answer()[2])["message_id"] for _ in texts]
    assert ids == sorted(ids)
    mail = wire.ask("/peek-messages", {"id": peer})[1]["messages"]
    assert [message["text"] for message in mail] == texts


def test_a_request_may_come_in_pieces(broker, wire):
    for byte in post(broker.port, "/list-peers", {"scope": "machine"}):
        wire.send(bytes([byte]))
    assert wire.answer()[::2] == (200, b"[]")


def test_a_flood_of_requests_waits_until_the_one_before_is_answered(broker, wire):
    gate = broker.hold("ledger")
    wire.send(post(broker.port, "/ledger", {}) * 5000)
    assert gate.entered.wait(BOUND)
    assert gate.calls == 1
    gate.open()
    assert {wire.answer()[0] for _ in range(5000)} == {200}


def test_head_tells_the_length_of_what_get_would_return(broker, wire):
    wire.send(head(broker.port, "GET", "/"))
    length = wire.answer()[1]["content-length"]
    for path, status, told in (("/", 200, length), ("/nothing", 404, None)):
        wire.send(head(broker.port, "HEAD", path))
        answer = wire.answer(bare=True)
        assert answer[0] == status
        assert told in (None, answer[1]["content-length"])
    assert wire.ask("/list-peers") == (200, [])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/register", 405), ("GET", "/live", 426)],
)
def test_a_path_that_is_not_there_is_refused_with_a_remedy(broker, wire, method, path, status):
    wire.send(head(broker.port, method, path))
    answer = wire.answer()
    assert answer[0] == status
    assert json.loads(answer[2])["remedy"].endswith(".")


def test_a_post_to_an_unknown_path_is_told_which_there_are(broker, wire):
    status, told = wire.ask("/nothing")
    assert (status, told["error"]) == (404, "not found")
    assert "/send-message" in told["remedy"]
    assert wire.ask("/list-peers") == (200, [])


BEFORE_THE_BODY = {
    "a foreign name": (421, {"Host": "evil.example:7899"}),
    "a web page": (403, {"Origin": "https://evil.example"}),
    "a web page that sends text": (403, {"Origin": "null", "Content_Type": "text/plain"}),
    "a proxy": (401, {"X_Forwarded_For": "8.8.8.8"}),
    "a bad token": (401, {"Authorization": "Bearer 00"}),
    "text": (415, {"Content_Type": "text/plain"}),
    "too much": (413, {"Content_Length": str(BODY + 1)}),
    "no length": (411, {"Content_Length": ""}),
    "chunks": (411, {"Content_Length": "", "Transfer_Encoding": "chunked"}),
    "two lengths": (400, {"Transfer_Encoding": "chunked"}),
}


@pytest.mark.parametrize("case", BEFORE_THE_BODY)
def test_what_may_not_pass_is_answered_before_its_body_is_sent(broker, wire, case):
    status, headers = BEFORE_THE_BODY[case]
    given = {"Content_Type": "application/json", "Content_Length": "1000", **headers}
    wire.send(head(broker.port, "POST", "/send-message", **given))
    answer = wire.answer()
    assert (answer[0], answer[1]["connection"]) == (status, "close")
    assert wire.rest() == b""


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("DELETE", "/health", 405, "GET, HEAD"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("PUT", "/register", 405, "POST"),
        ("HEAD", "/register", 405, "POST"),
        ("PUT", "/nothing", 405, "GET, HEAD, POST"),
        ("OPTIONS", "/health", 403, None),
    ],
)
def test_other_methods_are_refused_by_name(broker, wire, method, path, status, allowed):
    wire.send(head(broker.port, method, path))
    answer = wire.answer(bare=method == "HEAD")
    assert (answer[0], answer[1].get("allow")) == (status, allowed)


@pytest.mark.parametrize("size", [HEAD, HEAD + 1, 4 * HEAD])
def test_a_head_without_end_is_refused_at_the_limit(broker, wire, size):
    start = head(broker.port, "GET", "/")[:-2] + b"X: "
    wire.send(start + b"x" * (size - len(start)))
    assert wire.answer()[0] == 431


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.fault("F28")
def test_a_client_that_sends_a_large_body_regardless_can_read_why_it_is_refused(broker, chunked):
    sent = threading.Event()
    given = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": "100000000"}
    with Wire(broker.port) as wire:
        wire.send(head(broker.port, "POST", "/x", Content_Type="application/json", **given))
        for _ in range(200):
            wire.send(b"x" * 65536)
        sent.set()
        status, _, body = wire.answer()
    assert status == (411 if chunked else 413)
    assert json.loads(body)["remedy"]
    eventually(lambda: not broker.do(lambda: len(broker.server._connections)), timeout=BOUND)


def test_a_refused_client_that_never_ends_is_cut_off():
    with running(deadlines=Deadlines(linger=SHORT)) as broker, Wire(broker.port) as wire:
        wire.send(head(broker.port, "GET", "/", Host="evil.example"))
        assert wire.answer()[0] == 421
        assert wire.rest() == b""
        eventually(lambda: not broker.do(lambda: len(broker.server._connections)), timeout=BOUND)


def test_a_client_that_waits_for_leave_gets_it(broker, wire):
    body = json.dumps({"scope": "machine"}).encode()
    request = post(broker.port, "/list-peers", body, Expect="100-continue")
    wire.send(request[: -len(body)])
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(body)
    assert wire.answer()[0] == 200
    wire.send(post(broker.port, "/list-peers", body, Expect="100-continue"))
    assert wire.answer()[0] == 200  # it did not wait, so there is nothing to tell it


def test_a_client_that_waits_for_leave_and_may_not_is_refused_at_once(broker, wire):
    wire.send(
        head(
            broker.port,
            "POST",
            "/x",
            Content_Type="application/json",
            Content_Length=str(BODY + 1),
            Expect="100-continue",
        )
    )
    assert wire.answer()[0] == 413


@pytest.mark.parametrize("keep", ["", "keep-alive"])
def test_http_1_0_gets_its_answer_and_the_end(broker, wire, keep):
    request = post(broker.port, "/list-peers", {}, Expect="100-continue", Connection=keep)
    wire.send(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    status, headers, body = wire.answer()
    assert (status, headers["connection"], body) == (200, "close", b"[]")
    assert wire.rest() == b""


def test_a_client_that_asks_for_the_end_gets_it(broker, wire):
    wire.send(head(broker.port, "GET", "/", Connection="close"))
    assert wire.answer()[2] == b"claude-peers broker"
    assert wire.rest() == b""


# Whether an answer was written


def test_an_answer_counts_as_written_once_it_is_handed_over(monkeypatch, broker, wire):
    told = written(monkeypatch, broker, "hi")
    wire.send(head(broker.port, "GET", "/health"))
    assert wire.answer()[2] == b"hi"
    eventually(lambda: told == [True], timeout=BOUND)


def test_a_large_answer_counts_as_written_once_it_has_been_read(monkeypatch, broker):
    told = written(monkeypatch, broker, LARGE)
    with Wire(broker.port, receive=4096) as wire:
        wire.send(head(broker.port, "GET", "/health") * 2)
        first = wire.until(b"\r\n\r\n")
        assert b"200 OK" in first
        assert told == []
        wire.buffer = first + wire.buffer
        assert wire.answer()[2] == wire.answer()[2] == LARGE.encode()
        eventually(lambda: told == [True, True], timeout=BOUND)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_an_answer_is_not_written_when_the_client_leaves_before_reading(monkeypatch, broker, how):
    told = written(monkeypatch, broker, LARGE)
    with Wire(broker.port, receive=4096) as wire:
        wire.send(head(broker.port, "GET", "/health"))
        wire.until(b"\r\n\r\n")
        wire.leave(how)
    eventually(lambda: told == [False], timeout=BOUND)


@pytest.mark.parametrize("how", ["reset", "close", "half"])
def test_an_answer_is_not_written_when_the_client_left_while_it_was_made(broker, how):
    told = []
    gate = broker.hold("ledger")

    async def ledger(*_):
        return Answer(await broker.store.ledger() and {}, told.append)

    with Wire(broker.port) as wire, pytest.MonkeyPatch.context() as patch:
        patch.setitem(app._BY_PATH, "/ledger", ledger)
        wire.send(post(broker.port, "/ledger", {}))
        assert gate.entered.wait(BOUND)
        if how == "half":
            wire.socket.shutdown(1)
        else:
            wire.leave(how)
        eventually(lambda: not broker.do(lambda: len(broker.server._connections)), timeout=BOUND)
        gate.open()
        eventually(lambda: told == [False], timeout=BOUND)


def test_mail_in_an_answer_that_nobody_read_is_handed_out_again(broker):
    with Wire(broker.port) as wire:
        peer = wire.ask("/register", {})[1]["id"]
        body = {"from_id": "cli", "to_id": peer, "text": "x" * 250_000}
        for _ in range(60):
            assert wire.ask("/send-message", body)[1]["ok"]
    with Wire(broker.port, receive=4096) as slow:
        slow.send(post(broker.port, "/poll-messages", {"id": peer}))
        slow.until(b"\r\n\r\n")
        slow.leave("reset")
    with Wire(broker.port) as wire:
        eventually(
            lambda: len(wire.ask("/peek-messages", {"id": peer})[1]["messages"]) == 60,
            timeout=BOUND,
        )
        assert wire.ask("/ledger")[1]["balanced"]


# Time and number


@pytest.mark.parametrize(
    ("deadline", "sent"),
    [
        ("head", b""),
        ("head", b"GET / HT"),
        ("body", "a body that does not come"),
        ("idle", "a whole request"),
        ("head", "a whole request and a bit"),
    ],
)
def test_a_connection_is_cut_when_the_next_step_does_not_come(deadline, sent):
    with running(deadlines=Deadlines(**{deadline: SHORT})) as broker, Wire(broker.port) as wire:
        whole = head(broker.port, "GET", "/")
        match sent:
            case "a body that does not come":
                wire.send(post(broker.port, "/list-peers", {})[:-1])
            case "a whole request":
                wire.send(whole)
                assert wire.answer()[0] == 200
            case "a whole request and a bit":
                wire.send(whole + whole[:5])
                assert wire.answer()[0] == 200
            case _:
                wire.send(sent)
        with pytest.raises((ConnectionResetError, EOFError)):
            wire.until(b"\r\n\r\n")


@pytest.mark.threat("T24")
def test_a_trickle_does_not_put_the_deadline_off():
    with running(deadlines=Deadlines(head=SHORT)) as broker, Wire(broker.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nX: ")
        for sent in eventually_cut(wire):
            assert sent < HEAD


def test_serving_has_no_deadline(monkeypatch):
    short = Deadlines(head=SHORT, body=SHORT, idle=SHORT)
    with running(deadlines=short) as broker, Wire(broker.port) as wire:
        gate = broker.hold("ledger")
        wire.send(post(broker.port, "/ledger", {}))
        assert gate.entered.wait(BOUND)
        with Wire(broker.port) as other, pytest.raises((ConnectionResetError, EOFError)):
            other.until(b"x")  # by now every deadline of the first would have been over
        gate.open()
        assert wire.answer()[0] == 200


@pytest.mark.fault("F27")
def test_an_answer_that_is_not_read_is_given_up(monkeypatch):
    with running(deadlines=Deadlines(write=SHORT)) as broker:
        told = written(monkeypatch, broker, LARGE)
        with Wire(broker.port, receive=4096) as wire:
            wire.send(head(broker.port, "GET", "/health"))
            eventually(lambda: told == [False], timeout=BOUND)
            with pytest.raises((ConnectionResetError, EOFError)):
                wire.answer()


@pytest.mark.fault("F27")
def test_a_client_that_does_not_read_is_not_served_any_further(monkeypatch, broker):
    told = written(monkeypatch, broker, LARGE)
    request = head(broker.port, "GET", "/health")
    with Wire(broker.port, receive=4096) as wire:
        wire.send(request * 1000)
        wire.until(b"\r\n\r\n")
        (connection,) = broker.do(lambda: list(broker.server._connections))
        size = broker.do(connection.transport.get_write_buffer_size)
        assert 0 < size < 2 * len(LARGE)
        assert told == []
