"""The blocking client talks to nobody it has not verified, and never for ever."""

import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from claude_peers.client import exchange, http
from claude_peers.client.http import BrokerHttp
from claude_peers.core.errors import NoBrokerError
from claude_peers.wire import proof

SECRET = b"s" * 32
OWN = 1000
OTHER = 1001
OK = {"status": "ok", "peers": 0}
BOUND = 30.0


def response(value, *more, status="200 OK"):
    """Return an answer with a JSON body."""
    body = json.dumps(value).encode()
    lines = ["content-type: application/json;charset=utf-8", f"content-length: {len(body)}", *more]
    return f"HTTP/1.1 {status}\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Listener:
    """Somebody on a port: reads whole requests, answers each as it was told.

    Attributes:
        requests: head and body of what came, per connection.
    """

    def __init__(self, *answers):
        self.requests: list[list[tuple[str, bytes]]] = []
        self.finished = threading.Event()
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self):
        self.finished.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    def _run(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(BOUND)
                try:
                    self._serve(connection)
                except OSError:
                    continue

    def _serve(self, connection):
        self.requests.append([])
        while (request := self._read(connection)) is not None:
            self.requests[-1].append(request)
            answer = self._answers.pop(0)
            data = answer(self, connection, request[0]) if callable(answer) else answer
            if data is None:
                return
            connection.sendall(data)

    @staticmethod
    def _read(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(header(head.decode(), "content-length") or 0)
        while len(body) < length:
            body += connection.recv(65536)
        return head.decode(), body


def header(head, name):
    """Return a header's value in a head, or None."""
    lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    return lines.get(name)


def proves(secret=SECRET, epoch=7, health=OK, status="200 OK", challenge="c4"):
    """Answer the nonce with a proof under `secret`."""

    def answer(_listener, _connection, head):
        shown = proof.broker_proof(secret, header(head, proof.NONCE_HEADER), epoch)
        lines = [f"{proof.PROOF_HEADER}: {shown}", f"{proof.CHALLENGE_HEADER}: {challenge}"]
        return response(health, *lines, status=status)

    return answer


def hangs_up(*parts):
    """Send `parts` and close."""

    def answer(_listener, connection, _head):
        for part in parts:
            connection.sendall(part)

    return answer


def trickles(start, piece):
    """Send `start`, then `piece` again and again, without end."""

    def answer(listener, connection, _head):
        connection.sendall(start)
        while not listener.finished.wait(0.005):
            connection.sendall(piece)

    return answer


def waits(listener, _connection, _head):
    """Never answer."""
    listener.finished.wait(BOUND)


@pytest.fixture
def listen():
    listeners = []

    def start(*answers):
        listeners.append(Listener(*answers))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def client():
    clients = []

    def make(listener, *, uid=None, **changed):
        options = {"secret": SECRET, "trust_listener": False, "own_uid": OWN, "timeout": BOUND}
        port = listener if isinstance(listener, int) else listener.port
        made = BrokerHttp(port, listener_uid=lambda _port: uid, **{**options, **changed})
        clients.append(made)
        return made

    yield make
    for made in clients:
        made.close()


def refusal(act, *arguments, **options):
    with pytest.raises(NoBrokerError) as caught:
        act(*arguments, **options)
    return caught.value


def test_a_broker_that_knows_the_secret_is_proven_on_its_connection(listen, client):
    listener = listen(proves(), response([1]), response({"ok": True}))
    broker = client(listener, uid=OTHER)
    with broker:
        assert (broker.proven, broker.epoch, broker.challenge) == (True, 7, "c4")
        assert broker.health == OK
        assert broker.get("/status") == (200, [1])
        assert broker.post("/send-message", {"text": "é"}) == (200, {"ok": True})
    [[health, status, sent]] = listener.requests
    assert health[0].startswith("GET /health HTTP/1.1\r\n")
    assert header(health[0], "host") == f"127.0.0.1:{listener.port}"
    assert len(header(health[0], proof.NONCE_HEADER)) == 32
    assert status[0].startswith("GET /status HTTP/1.1\r\n")
    assert header(sent[0], "content-type") == "application/json"
    assert header(sent[0], proof.AUTH_HEADER) is None
    assert sent[1] == '{"text":"é"}'.encode()


def test_every_connection_gets_a_nonce_of_its_own(listen, client):
    listener = listen(proves(), proves())
    broker = client(listener)
    broker.open()
    broker.open()
    [[first], [second]] = listener.requests
    assert header(first[0], proof.NONCE_HEADER) != header(second[0], proof.NONCE_HEADER)


TRUST = [
    ("no proof, our own listener", response(OK), OWN, {}, None),
    ("no secret here, our own listener", response(OK), OWN, {"secret": None}, None),
    ("a wrong proof, our own listener", proves(b"x"), OWN, {}, None),
    ("unknown, but trusted", response(OK), None, {"trust_listener": True}, None),
    ("unknown", response(OK), None, {}, "CLAUDE_PEERS_TRUST_LISTENER=1"),
    ("a wrong proof, unknown", proves(b"x"), None, {}, "CLAUDE_PEERS_TRUST_LISTENER=1"),
    ("proof, but no secret here", proves(), None, {"secret": None}, "CLAUDE_PEERS_TRUST_LISTENER"),
    ("another user's", response(OK), OTHER, {}, "uid 1001"),
    ("another user's, trusted", response(OK), OTHER, {"trust_listener": True}, "uid 1001"),
    ("a wrong proof of another user", proves(b"x"), OTHER, {}, "uid 1001"),
    ("root's", response(OK), 0, {}, "uid 0"),
    ("another user's that refuses", response({}, status="401 No"), OTHER, {}, "uid 1001"),
]


@pytest.mark.parametrize(("answer", "uid", "options", "told"), [row[1:] for row in TRUST],
                         ids=[row[0] for row in TRUST])  # fmt: skip
def test_without_proof_the_listener_must_be_ours(listen, client, answer, uid, options, told):
    listener = listen(answer, response({"ok": True}))
    broker = client(listener, uid=uid, **options)
    if told is None:
        assert broker.post("/register", {}) == (200, {"ok": True})
        assert (broker.proven, broker.epoch) == (False, None)
    else:
        assert told in str(refusal(broker.post, "/register", {"cwd": "/secret"}))
        assert [head.split()[1] for [(head, _)] in listener.requests] == ["/health"]
        assert (broker.health, broker.challenge) == ({}, None)


def test_a_question_for_the_uid_that_fails_leaves_nothing_open(listen, client):
    def fails(_port):
        raise RuntimeError

    listener = listen(response(OK), response(OK))
    broker = client(listener)
    broker._listener_uid = fails
    for _ in range(2):
        with pytest.raises(RuntimeError):
            broker.post("/register", {})
    assert [len(connection) for connection in listener.requests] == [1, 1]


BROKEN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n{"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
STRANGERS = {
    "another server": response({"hello": "world"}),
    "a list": response(["ok"]),
    "a page": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "broken JSON": BROKEN,
    "an error": response(OK, status="404 Not Found"),
    "another protocol": hangs_up(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "bytes": hangs_up(b"\x15\x03\x01\x00\x02\x02\x46" * 9),
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
}


@pytest.mark.parametrize("case", STRANGERS)
def test_a_stranger_on_the_port_is_called_one(listen, client, case):
    error = refusal(client(listen(STRANGERS[case]), uid=OWN).open)
    assert "stranger" in error.fact
    assert "CLAUDE_PEERS_PORT" in error.remedy


def test_a_proven_broker_that_refuses_is_no_stranger(listen, client):
    listener = listen(proves(health={"error": "going"}, status="503 Service Unavailable"))
    assert "is not serving (HTTP 503)" in refusal(client(listener).open).fact


def test_an_empty_port_tells_how_to_start_a_broker(client):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = refusal(client(port).open)
    assert error.fact == f"No broker is running on 127.0.0.1:{port}"
    assert error.remedy == "Start an agent session with claude-peers, or run `claude-peers serve`."


class Selfish(socket.socket):
    """A socket that happens to get the port it dials as its own."""

    def connect(self, address):
        self.bind(address)
        super().connect(address)


def test_a_connection_to_itself_is_an_empty_port(client, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setattr(exchange.socket, "socket", Selfish)
    assert "No broker is running" in refusal(client(port).open).fact


class Jailed(socket.socket):
    """A socket in a sandbox without network."""

    def connect(self, address):
        raise PermissionError(1, "Operation not permitted")


def test_a_sandbox_is_named(client, monkeypatch):
    monkeypatch.setattr(exchange.socket, "socket", Jailed)
    error = refusal(client(7899).open)
    assert "Operation not permitted" in error.fact
    assert "sandbox" in error.remedy


HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"
BREAKS = {
    "at once": hangs_up(),
    "in the body": hangs_up(HALF),
    "between chunks": hangs_up(CHUNKED + b"5\r\nhello\r\n"),
    "in nonsense": hangs_up(CHUNKED + b"nonsense\r\n"),
}


@pytest.mark.parametrize("case", BREAKS)
@pytest.mark.parametrize("first", [True, False])
def test_a_broker_that_breaks_off_is_told_as_such(listen, client, case, first):
    listener = listen(*([] if first else [proves()]), BREAKS[case])
    error = refusal(client(listener).get, "/status")
    assert "broke off" in error.fact
    assert error.retry_after


@pytest.mark.bug("U10")
@pytest.mark.parametrize(
    "answer",
    [
        waits,
        trickles(b"", b"H"),
        trickles(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n", b"x"),
        trickles(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["silent", "a head without end", "a body by drips", "hints without end"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_slow_listener_is_left_when_the_time_is_over(listen, client, answer, first):
    listener = listen(*([] if first else [proves()]), answer)
    broker = client(listener)
    if not first:
        broker.open()
    broker._timeout = 0.05
    assert "did not answer within 0.05 s" in refusal(broker.get, "/status").fact


def test_a_time_that_is_over_before_it_begins_is_over(listen, client):
    assert "did not answer" in refusal(client(listen(), timeout=0.0).open).fact


def test_a_stranger_may_not_send_much(listen, client):
    big = response({"status": "ok", "x": "x" * http.HEALTH_MOST})
    assert "without end" in refusal(client(listen(big), uid=OWN).open).fact


def test_an_answer_without_end_is_cut_at_the_limit(listen, client, monkeypatch):
    monkeypatch.setitem(BrokerHttp._ask.__kwdefaults__, "most", 1000)
    endless = trickles(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)
    assert "without end" in refusal(client(listen(proves(), endless)).get, "/list").fact


def test_a_large_answer_arrives_whole(listen, client):
    value = ["x" * 1000] * 3000
    assert client(listen(proves(), response(value))).get("/x") == (200, value)


def test_a_hint_before_the_answer_is_passed_over(listen, client):
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    assert client(listen(proves(), hint + response({"a": 1}))).get("/x") == (200, {"a": 1})


def test_an_error_answer_is_an_answer(listen, client):
    body = {"error": "not found", "code": "not_found"}
    broker = client(listen(proves(), response(body, status="404 Not Found")))
    assert broker.post("/nothing", {}) == (404, body)


def test_text_comes_as_text(listen, client):
    text = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nbroker"
    assert client(listen(proves(), text)).get("/") == (200, "broker")


def test_broken_json_of_a_broker_is_told(listen, client):
    assert "broken JSON" in refusal(client(listen(proves(), BROKEN)).get, "/x").fact


def test_an_answer_before_the_request_was_read_is_heard(listen, client, monkeypatch):
    def severed(self, data):
        self.send(data)
        if data.startswith(b"POST"):
            raise BrokenPipeError

    broker = client(listen(proves(), response({"error": "too large"}, status="413 X")))
    broker.open()
    monkeypatch.setattr(exchange.socket.socket, "sendall", severed)
    assert broker.post("/x", {}) == (413, {"error": "too large"})


def test_authentication_answers_the_challenge(listen, client):
    listener = listen(proves(challenge="abc"), response({"ok": True}))
    client(listener).post("/step-down", {}, authenticate=True)
    [[_, (head, _)]] = listener.requests
    assert header(head, proof.AUTH_HEADER) == proof.client_proof(SECRET, "abc")


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (response(OK, f"{proof.CHALLENGE_HEADER}: abc"), {}),
        (proves(b"x"), {}),
        (proves(), {"secret": None}),
    ],
    ids=["no proof", "a wrong proof", "no secret here"],
)
def test_nothing_is_proven_to_who_has_not_proven_itself(listen, client, answer, options):
    listener = listen(answer)
    broker = client(listener, uid=OWN, **options)
    error = refusal(broker.post, "/step-down", {}, authenticate=True)
    assert "has not proven" in error.fact
    assert [len(connection) for connection in listener.requests] == [1]


@pytest.mark.parametrize("how", ["announced", "unasked words"])
def test_a_connection_that_cannot_be_kept_is_replaced_by_a_verified_one(listen, client, how):
    ends = response([1], "connection: close") if how == "announced" else response([1]) + b"HTTP"
    after = ends if how == "unasked words" else hangs_up(ends)
    listener = listen(proves(epoch=7), after, proves(epoch=8), response([2]))
    broker = client(listener)
    assert broker.get("/one") == (200, [1])
    assert broker.get("/two") == (200, [2])
    assert broker.epoch == 8
    paths = [[head.split()[1] for head, _ in connection] for connection in listener.requests]
    assert paths == [["/health", "/one"], ["/health", "/two"]]


def test_a_broken_exchange_is_not_repeated(listen, client):
    listener = listen(proves(), hangs_up(HALF), proves(epoch=8), response({"ok": True}))
    broker = client(listener)
    refusal(broker.post, "/send-message", {"text": "once"})
    assert (broker.proven, broker.epoch) == (False, None)
    assert broker.post("/send-message", {"text": "twice"}) == (200, {"ok": True})
    bodies = [body for connection in listener.requests for _, body in connection if body]
    assert bodies == [b'{"text":"once"}', b'{"text":"twice"}']


def test_a_link_closed_by_its_end_is_not_idle(listen):
    link = exchange.Link(listen(response(OK)).port, deadline=time.monotonic() + BOUND)
    assert link.idle()
    link.close()
    assert not link.idle()


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import claude_peers.client.http\n"
        "print({'asyncio', 'sqlite3', 'http.client', 'ssl', 'psutil'} & {*sys.modules} - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
