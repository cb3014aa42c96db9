"""Agent cards: agentmesh's shape, our guard, and what another machine may know."""

import json
from dataclasses import replace

import pytest
from support.inproc import Wire, head, running

from claude_peers import __version__
from claude_peers.gateway import cards
from claude_peers.gateway.guard import Facts

PATHS = ("/.well-known/agent.json", "/.well-known/agent-card.json", "/agent-card", "/agent-cards")
PRIVATE = {"name": "secretive", "cwd": "/home/me/project", "summary": "", "hostname": "far"}


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


def get(broker, path, **headers):
    with Wire(broker.port) as wire:
        wire.send(head(broker.port, "GET", path, **headers))
        status, told, body = wire.answer()
    return status, told, json.loads(body)


def join(broker, **body):
    with Wire(broker.port) as wire:
        return wire.ask("/register", body)[1]["id"]


@pytest.mark.parametrize("path", PATHS[:3])
def test_the_brokers_card_is_ours_and_names_where_it_was_asked(broker, path):
    status, _, card = get(broker, path)
    assert status == 200
    assert (card["name"], card["version"]) == ("claude-peers broker", __version__)
    assert card["url"] == f"http://127.0.0.1:{broker.port}"
    assert card["provider"]["organization"] == "claude-peers"
    assert [each["id"] for each in card["skills"]] == [
        "send-message", "broadcast", "subscribe", "list-agents", "register",
    ]  # fmt: skip


def test_an_agents_card_tells_what_it_told(broker):
    told = {"agent_name": "fa", "agent_type": "custom", "fleet_id": "prod", "device_id": "edge-1"}
    peer_id = join(broker, **told, capabilities=["gpu_train", "web-search"], summary="fleet agent")
    status, _, card = get(broker, f"/agent-card/{peer_id}")
    assert (status, card["name"], card["description"]) == (200, "prod/edge-1/fa", "fleet agent")
    assert card["url"] == f"http://127.0.0.1:{broker.port}/agent-card/{peer_id}"
    assert [each["name"] for each in card["skills"]] == ["Gpu Train", "Web Search"]
    assert card["agentmesh"]["online"] is card["capabilities"]["streaming"] is False
    assert get(broker, "/agent-cards")[2] == [card]


def test_who_tells_nothing_is_called_by_its_id_and_can_be_written_to(broker):
    peer_id = join(broker, hostname="far")
    card = get(broker, f"/agent-card/{peer_id}")[2]
    assert (card["name"], card["description"]) == (peer_id, "unknown agent on far")
    assert [each["id"] for each in card["skills"]] == ["messaging"]


def test_who_is_not_there_has_no_card(broker):
    peer_id = join(broker)
    with Wire(broker.port) as wire:
        wire.ask("/unregister", {"id": peer_id})
    for each in (peer_id, "zzzzzzzz", ""):
        status, _, told = get(broker, f"/agent-card/{each}")
        assert (status, told["error"]) == (404, "Agent not found")
    assert get(broker, "/agent-cards")[2] == []


@pytest.mark.bug("B4-20")
@pytest.mark.parametrize("path", PATHS)
def test_b4_20_no_page_may_ask_for_a_card_or_read_one(broker, path):
    status, headers, _ = get(broker, path)
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control-")]
    for sent in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert get(broker, path, **sent)[0] == 403


def test_another_machine_reads_no_paths_and_another_address(broker):
    join(broker, **PRIVATE)

    class Elsewhere:
        machine = "tablet"
        facts = Facts(peer="10.0.0.2", uid=None, own_uid=1, port=7899, remote=True)

    (card,) = broker.do(cards.page, broker.broker, Elsewhere(), "/agent-cards")
    assert "/home/me" not in json.dumps(card)
    assert card["url"].startswith("https://here:7899/agent-card/")


def test_a_peer_whose_mail_is_posted_is_not_online(broker):
    peer_id = join(broker)
    peer = broker.broker.roster.get(peer_id)
    broker.do(broker.broker.roster.note, replace(peer, route="webhook, failing: refused"))
    card = get(broker, f"/agent-card/{peer_id}")[2]
    assert card["capabilities"]["pushNotifications"] is True
    assert card["agentmesh"]["online"] is False
