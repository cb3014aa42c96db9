"""Two machines and a wire between them: what they may do, and what is refused."""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import http
from support.hosts import PORT, Host, Tunnel, two_hosts
from support.mcp import Session
from support.waiting import eventually

from claude_peers.client import joined
from claude_peers.wire.tls import Tls, client_context

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
MANY = 12


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(two_hosts(tmp_path))
        except OSError as reason:
            pytest.skip(f"this user may not make two networks: {reason}")
        yield made


def invite(host: Host, name: str = "laptop", *more: str) -> str:
    """Return a join string, once the broker listens for other machines."""

    def asked() -> str:
        return host.cli("invite", name, *more).stdout.strip()

    return eventually(asked, what="an invite")


def join(broker: Host, other: Host, name: str = "laptop") -> None:
    """Let one host use the other's broker from now on."""
    done = other.cli("join", stdin=invite(broker, name) + "\n")
    assert done.returncode == 0, done
    other.environ["CLAUDE_PEERS_BROKER_URL"] = f"https://{broker.address}:{PORT}"


def agent(host: Host, name: str, **environ: str) -> Session:
    """Return a session that has joined the broker under a name."""
    session = host.session(CLAUDE_PEERS_NAME=name, cwd=host.folder(name), **environ)
    session.list_prompts()
    assert name in session.call("whoami")[0]
    return session


def told(host: Host, *words: str) -> dict[str, str]:
    """Return the error that a command ends with."""
    done = host.cli(*words, "--json")
    assert done.returncode != 0, done
    return dict(json.loads(done.stderr)["error"])


def test_two_machines_talk_both_ways_and_nothing_is_lost_doubled_or_reordered(hosts):
    home, away = hosts
    home.lead()
    join(home, away)
    ann, bob = agent(home, "ann"), agent(away, "bob")

    for sender, target, name in ((bob, "ann", "ann"), (ann, "bob@laptop", "bob")):
        for number in range(MANY):
            text, failed = sender.call("send_message", to_id=target, message=f"to {name} {number};")
            assert not failed, text

    for session, name in ((ann, "ann"), (bob, "bob")):
        session.wait_for_push(f"to {name} {MANY - 1};")
        pushed = " ".join(push["content"] for push in session.pushes)
        assert re.findall(rf"to {name} (\d+);", pushed) == [str(n) for n in range(MANY)]
        assert "not verified" not in session.call("check_messages", full=True)[0]
    eventually(lambda: home.post("/ledger")["states"] == {"seen": 2 * MANY}, what="every receipt")


@pytest.mark.threat("T14")
def test_a_revoked_machine_is_cut_off_at_once_and_its_mail_is_kept(hosts):
    home, away = hosts
    home.lead()
    join(home, away)
    ann, bob = agent(home, "ann"), agent(away, "bob")
    assert home.connections() == 1

    done = home.cli("revoke", "laptop", "--json")

    assert json.loads(done.stdout) == {"ok": True, "name": "laptop", "peers": 1}
    # Not some time after it was answered: no connection of that machine is left.
    eventually(lambda: home.connections() == 0, timeout=1, what="the end of its connections")
    assert "bob" not in ann.call("list_peers")[0]
    text, failed = ann.call("send_message", to_id="bob", message="for later")
    assert not failed
    assert "not running" in text
    assert home.post("/ledger")["states"] == {"queued": 1}
    assert told(away, "peers")["code"] == "machine_revoked"
    text, failed = bob.call("list_peers")
    assert failed
    assert "The machine laptop was revoked" in text
    assert "claude-peers join" in text


def test_a_machine_that_joins_again_finds_its_mail(hosts):
    home, away = hosts
    home.lead()
    join(home, away)
    bob = agent(away, "bob")
    assert home.cli("revoke", "laptop").returncode == 0
    assert home.cli("send", "bob", "while you were out").returncode == 0

    join(home, away)

    bob.wait_for_push("while you were out")
    assert "while you were out" in bob.call("check_messages", full=True)[0]
    # That it was written is told once it was: a moment later than the client reads it.
    eventually(lambda: home.post("/ledger")["states"] == {"seen": 1}, what="the acknowledgement")


def test_a_remote_session_outlives_the_broker(hosts):
    home, away = hosts
    first = home.lead()
    second = home.start("serve", CLAUDE_PEERS_BIND="0.0.0.0")
    join(home, away)
    ann, bob = agent(home, "ann", CLAUDE_PEERS_BIND="0.0.0.0"), agent(away, "bob")
    assert not bob.call("send_message", to_id="ann", message="before")[1]

    first.kill()
    first.wait()

    assert not bob.call("send_message", to_id="ann", message="after")[1]
    assert home.wait_for_broker() in (second.pid, ann.pid)
    ann.wait_for_push("after")
    read = ann.call("check_messages", full=True)[0]
    assert list(re.findall(r"\b(?:before|after)\b", read)) == ["before", "after"]
    assert json.loads(home.cli("machines", "--json").stdout)["machines"][0]["state"] == "joined"


@pytest.mark.threat("T31")
def test_machines_see_less_of_each_other_unless_it_is_shared_on_purpose(hosts):
    home, away = hosts
    home.lead()
    join(home, away)
    ann, bob = agent(home, "ann"), agent(away, "bob")
    agent(home, "open", CLAUDE_PEERS_SHARE="full")

    seen = {peer["name"]: peer for peer in json.loads(away.cli("peers", "--json").stdout)}
    assert seen["ann"]["cwd"] == "ann"
    assert (seen["ann"]["pid"], seen["ann"]["tty"], seen["ann"]["git_root"]) == (None, None, None)
    assert seen["open"]["cwd"] == str(home.folder("open"))
    assert seen["bob"]["cwd"] == str(away.folder("bob"))
    assert seen["bob"]["pid"] == bob.pid

    seen = {peer["name"]: peer for peer in home.peers()}
    assert (seen["bob"]["cwd"], seen["bob"]["pid"], seen["bob"]["hostname"]) == (
        "bob",
        None,
        "laptop",
    )
    assert seen["bob"]["verified"] == "remote"
    assert str(home.root) not in bob.call("list_peers")[0].replace(str(home.folder("open")), "")
    assert str(away.root) not in ann.call("list_peers")[0]


@pytest.mark.threat("T14")
def test_an_invite_is_good_once_and_for_its_time(hosts):
    home, away = hosts
    home.lead()
    word = invite(home)
    assert away.cli("join", word).returncode == 0
    assert told(away, "join", word)["code"] == "invite_used"

    late = invite(home, "other", "--ttl", "0.001s")
    assert told(away, "join", late)["code"] == "invite_expired"
    assert told(away, "join", word[:-4])["code"] == "bad_request"


@pytest.mark.bug("P1")
@pytest.mark.threat("T28")
def test_a_broker_that_was_never_joined_is_not_even_connected_to(hosts):
    home, away = hosts
    with home.inside(), socket.create_server((home.address, PORT)) as listener:
        listener.setblocking(False)
        away.environ["CLAUDE_PEERS_BROKER_URL"] = f"https://{home.address}:{PORT}"
        assert told(away, "peers")["code"] == "not_joined"
        session = away.session()
        session.list_prompts()
        text, failed = session.call("list_peers")
        assert failed
        assert "has not joined a broker at 10.77.0.1:7899" in text
        with pytest.raises(BlockingIOError):
            listener.accept()


@dataclass
class Impostor:
    """Somebody with a certificate of their own, who takes down what is said inside TLS."""

    listener: socket.socket
    context: ssl.SSLContext
    shaken: int = 0
    said: bytes = b""
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                taken.settimeout(10)
                with taken, contextlib.suppress(OSError):
                    inside = self.context.wrap_socket(taken, server_side=True)
                    self.shaken += 1
                    self.said += inside.recv(65536)


@pytest.mark.threat("T28")
def test_another_certificate_gets_no_byte(hosts):
    home, away = hosts
    leader = home.lead()
    join(home, away)
    leader.terminate()
    leader.wait()
    other = home.home / "other.d"
    other.mkdir(mode=0o700)
    from claude_peers.host import certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.ensure(str(other)).path)
    with home.inside(), socket.create_server((home.address, PORT)) as listener:
        impostor = Impostor(listener, context)
        try:
            assert told(away, "send", "ann", "a secret")["code"] == "pin_changed"
            session = away.session()
            session.list_prompts()
            text, failed = session.call("list_peers")
        finally:
            impostor.close()
    assert failed
    assert "shows another certificate" in text
    assert impostor.said == b""


class Remote:
    """A connection of a test's own to the broker, from another host, with or without a token."""

    def __init__(self, host: Host, broker: Host, *, clock=time.time) -> None:
        where = f"{broker.address}:{PORT}"
        with host.inside():
            self._socket = socket.create_connection((broker.address, PORT), timeout=10)
        self.known = joined.find(f"{host.home}/.claude-peers.d", where, clock)
        self._tls = Tls(client_context(), pin=self.known.pin)
        self._socket.sendall(self._tls.begin())
        while not self._tls.established:
            self._tls.receive(self._socket.recv(65536))
            self._socket.sendall(self._tls.pending())
        self.signer = joined.Signer(self.known, self._tls.binding)

    def request(self, path: str, body: bytes | None = None, *, signed: bool = True) -> bytes:
        """Return a whole request."""
        method = "GET" if body is None else "POST"
        headers = {"Host": "h", **(self.signer.sign(method, path, body or b"") if signed else {})}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + (body or b"")

    def ask(self, request: bytes) -> tuple[int, dict[str, object]]:
        """Return status and JSON of the answer."""
        self._socket.sendall(self._tls.send(request))
        answer = b""
        while True:
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length and len(body) >= int(length[1]):
                return int(head.split()[1]), json.loads(body)
            data = self._socket.recv(65536)
            assert data, answer
            answer += self._tls.receive(data)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def remote(hosts):
    """Return what opens connections from a machine that has joined."""
    home, away = hosts
    home.lead()
    join(home, away)
    opened = []

    def connect(**given):
        opened.append(Remote(away, home, **given))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.mark.threat("T32")
def test_a_captured_request_is_refused_on_its_own_connection_and_on_every_other(hosts, remote):
    home, _ = hosts
    ann = home.post("/register", {"cwd": "/"})["id"]
    first = remote()
    body = json.dumps({"from_id": "nobody", "to_id": ann, "text": "once"}).encode()
    captured = first.request("/heartbeat", json.dumps({"id": ann}).encode())
    assert first.ask(captured)[0] == 200

    assert remote().ask(captured)[1]["code"] == "replayed"
    status, answer = first.ask(captured)
    assert (status, answer["code"]) == (401, "replayed")
    other = remote()
    altered = other.request("/send-message", body).replace(b"once", b"more")
    assert other.ask(altered)[1]["code"] == "replayed"
    assert home.post("/ledger")["accepted"] == 0


@pytest.mark.parametrize("skew", [-90, 90])
@pytest.mark.threat("T32")
def test_a_clock_that_is_off_is_named_with_both_times(remote, skew):
    connection = remote(clock=lambda: time.time() + skew)
    status, answer = connection.ask(connection.request("/health"))
    assert (status, answer["code"]) == (401, "clock_skew")
    assert len(re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["error"])) == 2
    assert re.search(r"differ by (89|90|91) s", answer["error"])


@pytest.mark.bug("P3")
@pytest.mark.threat("T13", "T14")
def test_without_a_token_every_path_is_refused(remote):
    for path, body in [
        *((path, None) for path in ("/", "/health", "/status", "/live", "/nothing")),
        *((path, b"{}") for path in ("/register", "/list-peers", "/join", "/admin/invite")),
    ]:
        connection = remote()
        status, answer = connection.ask(connection.request(path, body, signed=False))
        assert (path, status, answer["code"]) == (path, 401, "unknown_machine")


@pytest.mark.bug("B4-21")
@pytest.mark.threat("T15")
def test_a_machine_is_not_its_brokers_user(hosts, remote):
    for path in (
        "/history",
        "/admin/invite",
        "/admin/revoke",
        "/admin/machines",
        "/admin/step-down",
    ):
        connection = remote()
        body = json.dumps({"name": "x"}).encode()
        status, answer = connection.ask(connection.request(path, body))
        assert (path, status, answer["code"]) == (path, 401, "secret_required")
    _, away = hosts
    assert told(away, "log")["code"] == "secret_required"


def test_upstreams_clients_come_through_an_ssh_tunnel_unchanged(hosts):
    home, away = hosts
    home.start("serve")
    home.wait_for_broker()
    tunnel = Tunnel(away, home)
    try:
        ann = home.post("/register", {"pid": 1, "cwd": "/ann", "summary": ""})["id"]
        with away.inside():
            bob = http.post(PORT, "/register", {"pid": 2, "cwd": "/bob", "summary": ""}).json()[
                "id"
            ]
            listed = http.post(PORT, "/list-peers", {"scope": "machine", "exclude_id": bob}).json()
            sent = {"from_id": bob, "to_id": ann, "text": "through the tunnel"}
            assert http.post(PORT, "/send-message", sent).json()["ok"]
        assert [peer["id"] for peer in listed] == [ann]
        messages = home.post("/poll-messages", {"id": ann})["messages"]
        assert [message["text"] for message in messages] == ["through the tunnel"]
    finally:
        tunnel.close()
    assert home.connections() == 0
