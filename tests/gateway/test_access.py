"""Who may act for whom, over real connections of real processes and users."""

import json
import os
import socket
import threading

import pytest
from support.clients import LINUX, NOBODY, ROOT, Client
from support.inproc import BOUND, SECRET, LiveWire, Wire, head, post, running
from support.waiting import eventually

from claude_peers.core.limits import Limits
from claude_peers.wire import proof

ACTS = {
    "/poll-messages": {},
    "/peek-messages": {},
    "/unregister": {},
    "/set-summary": {"summary": "evil"},
    "/ack-messages": {"message_ids": [1]},
    "/release-messages": {"message_ids": [1]},
    "/pushed-messages": {"message_ids": [1]},
}
"""Everything a peer alone may do, but sending."""


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def strict():
    with running(require_token=True) as serving:
        yield serving


@pytest.fixture
def wire(broker):
    with Wire(broker.port) as client:
        yield client


def peer(broker, peer_id):
    return broker.do(lambda: broker.broker.roster.get(peer_id))


def accepted(broker):
    counts = broker.run(broker.store.ledger())
    assert counts.balanced
    return counts.accepted


# A process


@LINUX
@pytest.mark.threat("T7")
def test_an_unmodified_client_speaks_for_the_process_it_registers(broker, wire):
    with Client(broker.port) as client:
        me = client.register()["id"]
        assert peer(broker, me).trust == "process"
        assert client.ask("/send-message", {"from_id": me, "to_id": me, "text": "a"})[1]["ok"]
        (message,) = client.ask("/poll-messages", {"id": me})[1]["messages"]
        assert message["verified"] is True
        for path, more in ACTS.items():
            assert client.ask(path, {"id": me, **more})[0] == 200


@LINUX
@pytest.mark.parametrize("path", ACTS)
def test_no_other_process_acts_for_it(broker, wire, path):
    with Client(broker.port) as client:
        me = client.register()["id"]
        client.ask("/send-message", {"from_id": me, "to_id": me, "text": "a"})
        before = peer(broker, me)
        status, told = wire.ask(path, {"id": me, **ACTS[path]})
        assert (status, told["code"]) == (401, "not_your_peer")
        assert peer(broker, me) == before
        assert [m["text"] for m in client.ask("/peek-messages", {"id": me})[1]["messages"]] == ["a"]


@LINUX
@pytest.mark.parametrize("path", ["/ack-messages", "/release-messages", "/pushed-messages"])
def test_nobody_settles_mail_of_others_without_saying_whose_it_is(broker, wire, path):
    with Client(broker.port) as client:
        me = client.register()["id"]
        number = client.ask("/send-message", {"from_id": me, "to_id": me, "text": "a"})[1]
        wire.ask(path, {"ids": [number["message_id"]]})
        assert len(client.ask("/peek-messages", {"id": me})[1]["messages"]) == 1


@LINUX
def test_no_other_process_sends_under_its_id(broker, wire):
    with Client(broker.port) as client:
        me = client.register()["id"]
        status, told = wire.ask("/send-message", {"from_id": me, "to_id": me, "text": "forged"})
        assert (status, told["code"]) == (401, "not_your_peer")
        assert accepted(broker) == 0


@LINUX
def test_its_later_connections_speak_for_it_too(broker):
    with Client(broker.port) as client:
        me = client.register()["id"]
        assert client.ask("/health", Connection="close")[0] == 200
        assert client.ask("/poll-messages", {"id": me})[0] == 200


@pytest.mark.bug("U16")
@LINUX
def test_registering_anothers_pid_evicts_nobody(broker, wire):
    with Client(broker.port) as client:
        me = client.register()["id"]
        mine = wire.ask("/register", {"pid": client.pid, "cwd": "/evil"})[1]["id"]
        assert mine != me
        assert peer(broker, mine).trust == "open"
        listed = {each["id"]: each for each in wire.ask("/list-peers")[1]}
        assert listed[me]["cwd"] == "/w"
        assert listed[mine]["verified"] == "open"
        assert client.register()["id"] == me  # and the process itself is still the same peer


# A token


def test_the_first_use_of_its_token_binds_a_peer_to_it_for_good(broker, wire):
    joined = wire.ask("/register", {})[1]
    bearer = f"Bearer {joined['token']}"
    me = {"id": joined["id"]}
    assert wire.ask("/set-summary", {**me, "summary": "by anybody"})[0] == 200
    with Wire(broker.port) as other:
        assert other.ask("/poll-messages", me, Authorization=bearer)[0] == 200
        assert other.ask("/register", {"token": joined["token"]})[1]["id"] == joined["id"]
    assert peer(broker, joined["id"]).trust == "token"
    for path, more in ACTS.items():
        assert wire.ask(path, {**me, **more})[0] == 401, path
    body = {"from_id": joined["id"], "to_id": joined["id"], "text": "a"}
    assert wire.ask("/send-message", body)[0] == 401


@pytest.mark.parametrize("path", ACTS)
def test_the_token_of_another_peer_opens_nothing(broker, wire, path):
    victim = wire.ask("/register", {})[1]["id"]
    mallory = wire.ask("/register", {})[1]["token"]
    wire.ask("/send-message", {"from_id": "cli", "to_id": victim, "text": "a"})
    body = {"id": victim, **ACTS[path]}
    status, told = wire.ask(path, body, Authorization=f"Bearer {mallory}")
    assert (status, told["code"]) == (401, "not_your_peer")
    assert len(wire.ask("/peek-messages", {"id": victim})[1]["messages"]) == 1


def test_a_peer_that_proved_the_secret_needs_its_token_from_then_on(broker, wire):
    with LiveWire(broker.port) as live:
        joined = live.join()
        assert peer(broker, joined["id"]).trust == "token"
        for path, more in ACTS.items():
            assert wire.ask(path, {"id": joined["id"], **more})[0] == 401, path
        bearer = {"Authorization": f"Bearer {joined['token']}"}
        for path, more in ACTS.items():
            with Wire(broker.port) as other:
                assert other.ask(path, {"id": joined["id"], **more}, **bearer)[0] == 200, path
    with LiveWire(broker.port) as again:  # for good: another registration does not loosen it
        again.upgrade()
        again.call(1, "/register", {"token": joined["token"]})
        assert peer(broker, joined["id"]).trust == "token"


@pytest.mark.parametrize("path", ["/health", "/list-peers", "/status", "/live"])
def test_a_token_that_is_nobodys_is_refused_everywhere_but_at_the_registration(broker, path):
    bad = {"Authorization": f"Bearer {'0' * 64}"}
    with Wire(broker.port) as wire:
        wire.send(
            post(broker.port, path, {}, **bad)
            if path == "/list-peers"
            else head(broker.port, "GET", path, **bad)
        )
        status, _, body = wire.answer()
        assert (status, json.loads(body)["error"]) == (401, "invalid token")
    with Wire(broker.port) as wire:
        assert wire.ask("/register", {}, **bad)[0] == 200


def test_other_kinds_of_authorization_are_nobodys_business(broker, wire):
    assert wire.ask("/list-peers", {}, Authorization="Basic eDp5")[0] == 200


# Nobody in particular


def test_a_sender_that_is_no_peer_is_not_verified(broker, wire):
    you = wire.ask("/register", {})[1]["id"]
    assert wire.ask("/send-message", {"from_id": "cli", "to_id": you, "text": "a"})[1]["ok"]
    (message,) = wire.ask("/peek-messages", {"id": you})[1]["messages"]
    assert (message["from_id"], message["verified"]) == ("cli", False)


def test_a_sender_without_process_is_not_verified_unless_it_shows_its_token(broker, wire):
    joined = wire.ask("/register", {})[1]
    body = {"from_id": joined["id"], "to_id": joined["id"], "text": "a"}
    assert wire.ask("/send-message", body)[1]["ok"]
    bearer = f"Bearer {joined['token']}"
    assert wire.ask("/send-message", body, Authorization=bearer)[1]["ok"]
    mail = wire.ask("/peek-messages", {"id": joined["id"]}, Authorization=bearer)[1]["messages"]
    assert [message["verified"] for message in mail] == [False, True]


def test_changing_names_does_not_help_against_the_rate_limit():
    with running(limited=True) as broker, Wire(broker.port) as wire:
        you = wire.ask("/register", {})[1]["id"]
        bodies = [{"from_id": f"x{n}", "to_id": you, "text": "a"} for n in range(100)]
        answers = [wire.ask("/send-message", body)[1] for body in bodies]
        refused = [answer for answer in answers if not answer["ok"]]
        assert 30 <= len(refused) <= 40  # a burst of 60, and what comes back meanwhile
        assert {answer["code"] for answer in refused} == {"rate_limited"}


@pytest.mark.threat("T23")
def test_connecting_anew_does_not_help_against_the_rate_limit():
    with running(limited=True) as broker:
        with Wire(broker.port) as wire:
            you = wire.ask("/register", {})[1]["id"]
        refused = []
        for _ in range(100):
            with Wire(broker.port) as wire:
                body = {"from_id": "x", "to_id": you, "text": "a"}
                refused.append(not wire.ask("/send-message", body)[1]["ok"])
        assert not any(refused[:60])
        assert any(refused[60:])


# Only tokens


@LINUX
def test_where_tokens_are_required_owning_a_process_is_not_enough(strict):
    with Client(strict.port) as client:
        joined = client.register()
        assert peer(strict, joined["id"]).trust == "token"
        for path, more in ACTS.items():
            assert client.ask(path, {"id": joined["id"], **more})[0] == 401, path
            bearer = f"Bearer {joined['token']}"
            answer = client.ask(path, {"id": joined["id"], **more}, Authorization=bearer)
            assert answer[0] == 200, path


@pytest.mark.threat("T7")
def test_where_tokens_are_required_nobody_sends_without(strict):
    with Wire(strict.port) as wire:
        joined = wire.ask("/register", {})[1]
        for sender in (joined["id"], "cli", ""):
            body = {"from_id": sender, "to_id": joined["id"], "text": "a"}
            assert wire.ask("/send-message", body)[0] == 401
        assert accepted(strict) == 0
        bearer = f"Bearer {joined['token']}"
        body["from_id"] = joined["id"]
        assert wire.ask("/send-message", body, Authorization=bearer)[1]["ok"]


def test_where_tokens_are_required_a_peer_of_before_needs_one_too(strict):
    with Wire(strict.port) as wire:
        joined = wire.ask("/register", {})[1]
        strict.do(loosen, strict, joined["id"])
        assert wire.ask("/poll-messages", {"id": joined["id"]})[0] == 401
        bearer = f"Bearer {joined['token']}"
        assert wire.ask("/poll-messages", {"id": joined["id"]}, Authorization=bearer)[0] == 200


def loosen(broker, peer_id):
    """Make a peer one that registered when tokens were not required."""
    roster = broker.broker.roster
    found = roster.get(peer_id)
    object.__setattr__(found, "trust", type(found.trust).OPEN)


def test_where_tokens_are_required_the_users_command_line_proves_the_secret_instead(strict):
    with Wire(strict.port) as wire:
        you = wire.ask("/register", {})[1]["id"]
        wire.send(head(strict.port, "GET", "/health", **{proof.NONCE_HEADER: "n"}))
        challenge = wire.answer()[1][proof.CHALLENGE_HEADER]
        known = {proof.AUTH_HEADER: proof.client_proof(SECRET, challenge)}
        body = {"from_id": "cli", "to_id": you, "text": "a"}
        assert wire.ask("/send-message", body, **known)[1]["ok"]
        assert wire.ask("/poll-messages", {"id": "nobody00"})[0] == 401


def test_where_tokens_are_required_a_live_connection_is_bound_by_its_registration(strict):
    with LiveWire(strict.port) as live:
        me = live.join()["id"]
        body = {"from_id": me, "to_id": me, "text": "a"}
        assert live.call(2, "/send-message", body)[1]["ok"]
        assert live.call(3, "/poll-messages", {"id": me})[0] == 200


# Another user


@ROOT
@LINUX
@pytest.mark.parametrize("path", ["/health", "/status", "/", "/live", "/list-peers", "/register"])
def test_another_user_gets_no_further_than_being_told_whose_broker_it_is(broker, path):
    with Client(broker.port, NOBODY) as client:
        body = {} if path in {"/list-peers", "/register"} else None
        status, told = client.ask(path, body)
        assert (status, told["code"]) == (401, "other_user")
        assert "uid 65534" in told["error"]


@ROOT
@LINUX
def test_another_user_with_a_peers_token_acts_for_that_peer(broker, wire):
    joined = wire.ask("/register", {})[1]
    with Client(broker.port, NOBODY) as client:
        bearer = f"Bearer {joined['token']}"
        assert client.ask("/poll-messages", {"id": joined["id"]}, Authorization=bearer)[0] == 200


@LINUX
@pytest.mark.parametrize("uid", [0, pytest.param(NOBODY, marks=ROOT)])
@pytest.mark.threat("T10")
def test_who_hangs_up_before_it_can_be_asked_for_its_user_writes_nothing(broker, wire, uid):
    you = wire.ask("/register", {})[1]["id"]
    body = {"from_id": "cli", "to_id": you, "text": "hit and run"}
    busy, go_on = threading.Event(), threading.Event()

    def blocked():
        busy.set()
        go_on.wait(BOUND)

    with Client(broker.port, uid) as client:
        client.ask("/health")
        broker._loop.call_soon_threadsafe(blocked)
        assert busy.wait(BOUND)
        client.ask("hit and run", post(broker.port, "/send-message", body).decode())
    go_on.set()
    assert wire.ask("/list-peers")[0] == 200
    eventually(lambda: len(broker.server._connections) == 1, timeout=BOUND)
    assert accepted(broker) == 0


@LINUX
def test_a_caller_is_known_also_through_an_ipv6_socket(broker):
    with socket.socket(socket.AF_INET6) as mapped:
        mapped.settimeout(BOUND)
        try:
            mapped.connect(("::ffff:127.0.0.1", broker.port))
        except OSError:
            pytest.skip("no IPv6 here")
        mapped.sendall(head(broker.port, "GET", "/health"))
        assert mapped.recv(65536).startswith(b"HTTP/1.1 200")


def test_where_the_system_does_not_tell_everybody_on_this_machine_passes(monkeypatch):
    monkeypatch.setattr("claude_peers.gateway.server.sockets.listener_uid", lambda _port: None)
    monkeypatch.setattr("claude_peers.gateway.caller.sockets.owner", lambda _peer, _me: None)
    with running() as broker, Wire(broker.port) as wire:
        joined = wire.ask("/register", {"pid": os.getpid()})[1]
        assert peer(broker, joined["id"]).trust == "open"
        assert wire.ask("/poll-messages", {"id": joined["id"]})[0] == 200


@pytest.mark.bug("B4-19")
def test_a_broadcast_over_the_limit_is_refused_as_agentmesh_refuses_it():
    with running(limited=True) as broker, Wire(broker.port) as wire:
        body = {"from_id": "cli", "topic": "t", "text": "x"}
        answers = [wire.ask("/broadcast", body) for _ in range(Limits().burst + 1)]
    status, told = answers[-1]
    assert (status, told["ok"], told["code"], told["delivered_to"]) == (
        200, False, "rate_limited", [],
    )  # fmt: skip
