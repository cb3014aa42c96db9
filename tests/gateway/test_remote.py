"""What comes from another machine: signed, each time, or it is nobody."""

import contextlib
import json
import socket
import time
from dataclasses import replace

import h11
import pytest
from support import waiting
from support.abroad import BOUND, abroad, ask
from support.inproc import LiveWire
from support.websocket import Agent

from claude_peers.client.remote import RemoteLink
from claude_peers.gateway.places import STRANGERS, Places
from claude_peers.wire import frames, proof, signature

PATHS = [("GET", path) for path in ("/", "/health", "/status", "/live", "/nothing")]
PATHS += [("POST", path) for path in ("/register", "/join", "/list-peers", "/admin/invite")]


@pytest.fixture
def there():
    with abroad() as made:
        yield made


@pytest.fixture
def link(there):
    with contextlib.closing(there.link()) as made:
        yield made


def code(answer):
    return answer.status, answer.json()["code"]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_a_signature_no_path_is_served(link, method, path):
    assert code(ask(link, method, path, b"{}" * (method == "POST"), signed={})) == (
        401,
        "unknown_machine",
    )


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_with_a_token_that_never_joined_no_path_is_served(there, method, path):
    stranger = replace(there.joined, token="x" * 43)
    with contextlib.closing(RemoteLink(stranger, deadline=time.monotonic() + BOUND)) as link:
        answer = ask(link, method, path, b"{}" * (method == "POST"))
    assert answer.status == 401
    assert answer.json()["code"] in ("unknown_machine", "unknown_invite")


def test_a_session_on_another_machine_takes_no_place_of_this_ones():
    none = Places(requests=9, streams=0, together=20)
    with abroad(places=none) as there, contextlib.closing(there.link()) as link:
        upgrade = {"Connection": "Upgrade", "Upgrade": frames.PROTOCOL}
        assert code(ask(link, "GET", "/live", **upgrade)) == (503, "crowded")
        with LiveWire(there.broker.port) as session:
            assert session.join()["id"]


def test_websockets_of_a_machine_take_no_place_of_those_of_this_one():
    half = Places(requests=9, streams=2, together=20)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    headers["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    with abroad(places=half) as there, contextlib.ExitStack() as open_:
        links = [open_.enter_context(contextlib.closing(there.link())) for _ in range(2)]
        signed = links[0].signed("GET", "/ws", b"")
        lines = {name.replace("_", "-"): value for name, value in {**headers, **signed}.items()}
        asked = h11.Request(method="GET", target="/ws", headers=[("host", "h"), *lines.items()])
        links[0]._put(h11.Connection(h11.CLIENT).send(asked))
        waiting.eventually(lambda: len(there.broker.server._upgraded) == 1, timeout=BOUND)
        assert code(ask(links[1], "GET", "/ws", **headers)) == (503, "crowded")
        with Agent(there.broker.port) as agent:
            assert agent.join()


def test_a_machine_that_has_joined_is_served_and_the_broker_proves_itself(there, link):
    answer = ask(link, "GET", "/health", **{proof.NONCE_HEADER.replace("-", "_"): "n1"})
    assert answer.json()["status"] == "ok"
    shown = answer.headers[proof.PROOF_HEADER]
    assert proof.proven_epoch(there.joined.secret, "n1", shown) == 1
    assert proof.proven_epoch(b"s" * 32, "n1", shown) is None


def test_a_request_is_taken_once_and_on_its_own_connection_only(there, link):
    captured = link.signed("POST", "/register", b"{}")
    assert ask(link, "POST", "/register", b"{}", signed=captured).status == 200
    with contextlib.closing(there.link()) as other:
        assert code(ask(other, "POST", "/register", b"{}", signed=captured)) == (401, "replayed")
    assert code(ask(link, "POST", "/register", b"{}", signed=captured)) == (401, "replayed")
    assert len(list(there.broker.broker.roster)) == 1


def test_another_path_or_body_is_not_what_was_signed(there, link):
    signed = link.signed("POST", "/register", b"{}")
    assert code(ask(link, "POST", "/register", b"[]", signed=signed)) == (401, "replayed")
    with contextlib.closing(there.link()) as other:
        signed = other.signed("POST", "/register", b"{}")
        assert code(ask(other, "POST", "/list-peers", b"{}", signed=signed)) == (401, "replayed")
    assert list(there.broker.broker.roster) == []


@pytest.mark.parametrize("skew", [-61.5, 61.5])
def test_a_clock_that_is_off_is_told(there, skew):
    with contextlib.closing(there.link(clock=lambda: time.time() + skew)) as link:
        assert code(ask(link, "GET", "/health")) == (401, "clock_skew")


def test_a_revoked_machines_connections_end_and_its_token_is_refused(there, link):
    assert ask(link, "GET", "/health").status == 200
    with contextlib.closing(there.link()) as live:
        sign = live.signed("GET", "/live", b"")
        upgrade = {"connection": "Upgrade", "upgrade": "claude-peers/1", **sign}
        head = "".join(f"{name}: {value}\r\n" for name, value in upgrade.items())
        live._put(f"GET /live HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode())
        assert live._take(time.monotonic() + BOUND).startswith(b"HTTP/1.1 101")

        there.revoke()

        for each in (link, live):
            with contextlib.suppress(ConnectionResetError):
                assert each._take(time.monotonic() + BOUND) == b""
    with contextlib.closing(there.link()) as again:
        assert code(ask(again, "GET", "/health")) == (401, "machine_revoked")


def test_revoking_one_machine_leaves_the_others_connected(there, link):
    assert ask(link, "GET", "/health").status == 200
    there.invite("vm")
    there.revoke("vm")
    assert ask(link, "GET", "/health").status == 200


def test_a_machines_token_is_not_the_users_secret(there, link):
    health = ask(link, "GET", "/health", **{proof.NONCE_HEADER.replace("-", "_"): "n1"})
    challenge = health.headers[proof.CHALLENGE_HEADER]
    auth = {proof.AUTH_HEADER.replace("-", "_"): proof.client_proof(there.joined.secret, challenge)}
    for path in ("/history", "/admin/step-down", "/admin/machines"):
        assert code(ask(link, "POST", path, b"{}", **auth)) == (401, "secret_required")
    body = json.dumps({"from_id": "cli", "to_id": "x", "text": "t"}).encode()
    assert ask(link, "POST", "/send-message", body, **auth).json()["code"] == "peer_not_found"
    assert code(ask(link, "POST", "/send-message", body)) == (401, "not_your_peer")


def test_a_wrong_proof_makes_nobody_a_user(there, link):
    auth = {proof.AUTH_HEADER.replace("-", "_"): proof.client_proof(b"", "c")}
    body = json.dumps({"from_id": "cli", "to_id": "x", "text": "t"}).encode()
    assert code(ask(link, "POST", "/send-message", body, **auth)) == (401, "not_your_peer")


def test_what_the_node_does_is_told_on_its_own_machine_only(there, link):
    assert "sessions" not in ask(link, "GET", "/status").json()


def test_a_web_page_and_a_proxy_are_refused_here_too(there, link):
    assert ask(link, "GET", "/health", origin="https://e").status == 403
    with contextlib.closing(there.link()) as other:
        assert ask(other, "GET", "/health", x_forwarded_for="8.8.8.8").status == 401


def test_who_does_not_speak_tls_gets_no_answer(there):
    address = (there.joined.address.host, there.joined.address.port)
    with socket.create_connection(address, timeout=BOUND) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(65536)


def test_strangers_do_not_crowd_out_who_has_joined(there):
    address = (there.joined.address.host, there.joined.address.port)
    with contextlib.ExitStack() as stack:
        taken = [
            stack.enter_context(socket.create_connection(address, timeout=BOUND))
            for _ in range(STRANGERS)
        ]
        waiting.eventually(lambda: len(there.broker.server._connections) == STRANGERS)
        one_more = stack.enter_context(socket.create_connection(address, timeout=BOUND))
        with contextlib.suppress(ConnectionResetError):
            assert one_more.recv(1) == b""
        for each in taken:
            each.close()
        waiting.eventually(lambda: not there.broker.server._connections)
        with contextlib.closing(there.link()) as link:
            assert ask(link, "GET", "/health").status == 200


def test_a_remote_caller_owns_no_process_and_is_counted_by_its_machine(there, link):
    ask(link, "POST", "/register", json.dumps({"pid": 1}).encode())
    (connection,) = there.broker.server._connections
    caller = connection.caller
    assert (caller.source, caller.machine, caller.traceable) == ("machine mac", "mac", False)
    assert not caller.owns(object())
    (peer,) = there.broker.broker.roster
    assert (peer.trust, peer.machine, peer.host, peer.process) == ("remote", "mac", "mac", None)
    assert signature.read(link.signed("GET", "/", b"")[signature.HEADER]).number > 1
