"""What is asked of another implementation's broker and would be passed over there."""

import pytest

from claude_peers.client import others
from claude_peers.client.errors import NotOfferedError

UPSTREAM = {"status": "ok", "peers": 2}
AGENTMESH = {**UPSTREAM, "version": "agentmesh/0.4.0"}
OURS = {**UPSTREAM, "version": "claude-peers/1.0"}
BARE = [{"id": "a", "pid": 1}, {"id": "b", "pid": 2}]
TELLING = [
    {
        "id": "a",
        "fleet_id": "red",
        "device_id": None,
        "agent_type": "codex",
        "capabilities": ["review", "deploy"],
        "online": True,
    },
    {
        "id": "b",
        "fleet_id": None,
        "device_id": "edge",
        "agent_type": "claude-code",
        "capabilities": None,
        "online": False,
    },
]
WAY_OUT = "the next session of claude-peers leads"


def listed(peers, health, **wanted):
    return others.narrowed("/list-peers", {"scope": "machine", **wanted}, peers, health)


@pytest.mark.parametrize("health", [UPSTREAM, AGENTMESH])
def test_a_scope_is_refused_where_scopes_are_unknown(health):
    with pytest.raises(NotOfferedError, match=f"it knows no scopes.*{WAY_OUT}"):
        others.check("/broadcast", {"scope": "@machine", "text": "x"}, health)
    others.check("/broadcast", {"topic": "build", "text": "x"}, health)
    others.check("/send-message", {"to_id": "a", "text": "x"}, health)


def test_a_last_value_is_refused_where_none_is_kept():
    kept, passing = {"topic": "build", "text": "x", "retain": True}, {"topic": "build", "text": "x"}
    old = {**UPSTREAM, "version": "agentmesh/0.1.0"}
    with pytest.raises(NotOfferedError, match=f"it knows no last values.*{WAY_OUT}"):
        others.check("/broadcast", kept, old)
    others.check("/broadcast", {**passing, "retain": False}, old)
    others.check("/broadcast", kept, AGENTMESH)


def test_a_broker_of_this_program_knows_scopes_and_filters_whoever_it_belongs_to():
    others.check("/broadcast", {"scope": "@machine", "text": "x"}, OURS)
    assert listed(TELLING, OURS, fleet_id="none") == TELLING


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["a", "b"]),
        ({"fleet_id": "red"}, ["a"]),
        ({"device_id": "edge"}, ["b"]),
        ({"agent_type": "codex"}, ["a"]),
        ({"capabilities": ["deploy"]}, ["a"]),
        ({"capabilities": ["deploy", "cook"]}, []),
        ({"online_only": True}, ["a"]),
        ({"fleet_id": "red", "device_id": "edge"}, []),
        ({"fleet_id": "", "capabilities": [], "online_only": False}, ["a", "b"]),
    ],
)
def test_a_list_is_narrowed_by_what_its_peers_tell(wanted, found):
    assert [peer["id"] for peer in listed(TELLING, AGENTMESH, **wanted)] == found


@pytest.mark.parametrize(
    ("wanted", "lacked"),
    [
        ({"fleet_id": "red"}, "fleets"),
        ({"device_id": "edge"}, "devices"),
        ({"agent_type": "codex"}, "types of agents"),
        ({"capabilities": ["deploy"]}, "capabilities"),
        ({"online_only": True}, "presence"),
    ],
)
def test_a_list_is_refused_where_its_peers_do_not_tell_what_it_is_narrowed_by(wanted, lacked):
    with pytest.raises(NotOfferedError, match=f"it knows no {lacked}. .*{WAY_OUT}"):
        listed(BARE, UPSTREAM, **wanted)
    assert listed([], UPSTREAM, **wanted) == []
    assert listed(BARE, UPSTREAM) == BARE


def test_other_answers_are_left_as_they_are():
    refusal = {"error": "database is locked"}
    assert listed(refusal, UPSTREAM, fleet_id="red") == refusal
    told = [{"id": 1}]
    assert others.narrowed("/agent-cards", {"fleet_id": "red"}, told, UPSTREAM) is told


def test_agentmesh_is_known_by_what_it_says_of_itself():
    assert others.speaks_agentmesh(AGENTMESH)
    assert not any(map(others.speaks_agentmesh, (UPSTREAM, OURS, {"version": None})))
