"""One test per oddity of another implementation."""

import pytest

from claude_peers.wire import quirks
from claude_peers.wire.quirks import ACKNOWLEDGEMENT, client_name, renamed, scalar_as_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "1"),
        (False, "0"),
        (42, "42"),
        (-7, "-7"),
        (3.5, "3.5"),
        (5.0, "5"),
        (-2.0, "-2"),
        (1e300, "1e+300"),
    ],
)
def test_a_scalar_reads_as_upstreams_database_stored_it(value, text):
    assert scalar_as_text(value) == text


@pytest.mark.parametrize(
    ("body", "owner"),
    [
        ({"id": "a", "message_ids": [1]}, "a"),
        ({"peer_id": "a", "ids": [1]}, "a"),
        ({"ids": [1]}, None),
        ({"message_ids": [1]}, None),
    ],
    ids=["agentmesh", "PR 15 and 25", "issue 65", "PR 11"],
)
def test_an_acknowledgement_is_understood_in_each_of_its_shapes(body, owner):
    understood = renamed(body, ACKNOWLEDGEMENT)
    assert (understood.get("id"), understood["message_ids"]) == (owner, [1])


def test_an_empty_acknowledgement_is_empty_in_every_shape():
    empty = {"id": "a", "message_ids": []}
    assert renamed(empty, ACKNOWLEDGEMENT) == empty
    assert set(renamed({}, ACKNOWLEDGEMENT).values()) == {None}


def test_a_field_under_our_name_counts_unless_it_is_null():
    twice = {"id": "a", "peer_id": "b", "message_ids": None, "ids": [1]}
    assert renamed(twice, ACKNOWLEDGEMENT) == twice | {"message_ids": [1]}


@pytest.mark.parametrize(
    ("agent_type", "client", "name"),
    [("hermes", "codex", "codex"), ("hermes", None, "hermes"), (None, None, ""), ("a", "", "a")],
)
def test_our_name_of_a_client_wins_over_agentmeshs(agent_type, client, name):
    assert client_name(agent_type, client) == name


def test_a_refused_broadcast_reached_nobody_in_agentmeshs_words():
    told = {"ok": False, "error": "x"}
    assert quirks.refused("/broadcast", told) == told | {"delivered_to": []}
    assert quirks.refused("/send-message", told) == told


def test_a_missing_agent_is_named_as_agentmesh_names_it():
    error = quirks.agent_not_found("a\nb")
    assert (error.fact, error.code) == ("Agent a b not found", "peer_not_found")
    assert error.remedy
