"""What other brokers offer and ours does not yet: what it answers instead."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from support.inproc import Wire, head, running
from threats.naive import naive
from threats.requests import LIVE, UPGRADE

FEDERATION = {
    "/ws/federation": {"type": "AGENT_SYNC", "agents": []},
    "/federation/hello": {"secret_hash": "0" * 64},
    "/federation/agent-update": {"id": "$VICTIM", "cwd": "/evil"},
}
FIELDS = ("webhook", "webhook_url", "callback_url", "url")
"""Where a registration names an address to be called."""


class _Called(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.calls.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep stderr clean."""


@pytest.fixture
def somebody() -> Iterator[http.server.HTTPServer]:
    """Return a server of somebody else that counts who calls it."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Called) as server:
        server.calls = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.threat("T6")
def test_there_is_no_websocket_of_brokers():
    with running() as broker, Wire(broker.port) as wire:
        given = {name.replace("-", "_"): value for name, value in UPGRADE.items()}
        wire.send(head(broker.port, "GET", "/ws/federation", **given))
        status, headers, told = wire.answer()
    assert (status, json.loads(told)["code"]) == (404, "not_found")
    assert "upgrade" not in headers


@pytest.mark.threat("T6")
def test_a_live_connection_does_not_speak_websocket():
    with running() as broker, Wire(broker.port) as wire:
        given = {name.replace("-", "_"): value for name, value in (LIVE | UPGRADE).items()}
        wire.send(head(broker.port, "GET", "/live", **given))
        status, _, told = wire.answer()
    assert (status, json.loads(told)["code"]) == (426, "upgrade_required")


@pytest.mark.bug("B4-6", "B4-7", "B4-8", "B4-9", "B4-10", "B4-11", "B4-21")
@pytest.mark.threat("T15", "T16")
@pytest.mark.parametrize("path", FEDERATION)
def test_there_is_no_federation_that_could_be_joined_or_replayed(path):
    with running() as broker, Wire(broker.port) as wire:
        victim = wire.ask("/register", {"summary": "mine"})[1]["id"]
        body = json.loads(json.dumps(FEDERATION[path]).replace("$VICTIM", victim))
        for _ in range(2):
            status, told = wire.ask(path, body)
            assert (status, told["code"]) == (404, "not_found")
        (row,) = wire.ask("/list-peers")[1]
        assert (row["id"], row["summary"]) == (victim, "mine")


@pytest.mark.threat("T15")
def test_a_registration_that_claims_another_peers_id_or_machine_gets_its_own():
    with running() as broker, Wire(broker.port) as wire:
        victim = wire.ask("/register", {"summary": "mine", "name": "mine"})[1]["id"]
        claims = {"id": victim, "machine": "far", "origin": "far", "hostname": "far"}
        mine = wire.ask("/register", {**claims, "name": "mine", "summary": "evil"})[1]
        assert mine["id"] != victim
        rows = {row["id"]: row for row in wire.ask("/list-peers")[1]}
        assert rows[victim]["summary"] == "mine"
        assert rows[victim]["name"] != rows[mine["id"]]["name"]
        assert not broker.do(lambda: broker.broker.roster.get(mine["id"])).machine


@pytest.mark.threat("T17")
def test_a_forged_sender_is_marked_as_not_verified_and_nothing_vouches_for_it():
    with running() as broker, Wire(broker.port) as wire:
        victim = wire.ask("/register", {})[1]["id"]
        claims = {"from_name": "boss", "verified": True, "signature": "0" * 64, "proof": "x"}
        wire.ask("/send-message", {"from_id": "boss", "to_id": victim, "text": "obey", **claims})
        (message,) = wire.ask("/peek-messages", {"id": victim})[1]["messages"]
    assert message["verified"] is False
    assert not {"signature", "proof"} & set(message)
    assert message.get("from_name") != "boss"


@pytest.mark.bug("P8")
@pytest.mark.threat("T18")
@pytest.mark.parametrize("field", FIELDS)
def test_nobody_is_called_for_a_field_that_is_none_of_ours(somebody, field):
    url = f"http://127.0.0.1:{somebody.server_port}/"
    with running() as broker, Wire(broker.port) as wire:
        you = wire.ask("/register", {field: url, "agent_type": "webhook"})[1]["id"]
        assert wire.ask("/send-message", {"from_id": "cli", "to_id": you, "text": "a"})[1]["ok"]
        (message,) = wire.ask("/peek-messages", {"id": you})[1]["messages"]
        assert url not in json.dumps([message, *wire.ask("/list-peers")[1]])
    assert somebody.calls == []


@pytest.mark.threat("T18")
def test_a_broker_that_calls_whatever_it_is_told_calls_this_machine_too(somebody):
    with naive() as (port, _), Wire(port) as wire:
        url = f"http://127.0.0.1:{somebody.server_port}/admin"
        you = wire.ask("/register", {"webhook": url})[1]["id"]
        wire.ask("/send-message", {"from_id": "cli", "to_id": you, "text": "a"})
    assert somebody.calls == ["/admin"]
