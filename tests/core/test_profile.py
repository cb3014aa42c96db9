"""What a peer tells about itself, and what a list is narrowed to."""

import pytest

from claude_peers.core.profile import (
    CAPABILITIES,
    Profile,
    Wanted,
    agent_type,
    granted,
    group,
    transport,
    words,
)

PROFILE = Profile(agentmesh=True, capabilities=("a", "b"), fleet_id="f", device_id="d")


@pytest.mark.parametrize(
    ("wanted", "is_met"),
    [
        ({}, True),
        ({"agent_type": "codex"}, True),
        ({"agent_type": "claude-code"}, False),
        ({"fleet_id": "f", "device_id": "d", "capabilities": ["b"]}, True),
        ({"fleet_id": "g"}, False),
        ({"device_id": "f"}, False),
        ({"capabilities": ["a", "c"]}, False),
    ],
)
def test_a_peer_has_to_be_all_that_is_wanted(wanted, is_met):
    assert Wanted(**wanted).is_met("codex", PROFILE) is is_met


def test_who_speaks_agentmesh_and_tells_no_type_is_claude_code():
    assert agent_type("", PROFILE) == "claude-code"
    assert agent_type("", Profile()) == ""
    assert agent_type("codex", PROFILE) == "codex"


def test_no_quality_is_the_usual_one_and_an_unknown_one_is_safe():
    assert [granted(None), granted(None, 0), granted(0), granted(2), granted(9)] == [1, 0, 0, 2, 1]


def test_a_message_is_kept_as_its_sender_says_or_else_its_recipient():
    told = Profile(default_ttl_ms=1500)
    assert (told.ttl(None), told.ttl(0), told.ttl(3000)) == (1.5, 0.0, 3.0)
    assert Profile().ttl(None) is None


def test_words_come_once_on_one_line_and_are_bounded():
    assert words(["a", "", "a", "b\nc"]) == ("a", "b c")
    assert len(words(map(str, range(100)))) == CAPABILITIES
    assert (group(None), group(" \n"), group("f")) == (None, None, "f")


def test_a_route_says_first_how_a_peer_is_reached():
    assert transport("webhook, failing: refused") == "webhook"
    assert transport("websocket") == "websocket"
    assert transport("") == transport("rewake") == "poll"
