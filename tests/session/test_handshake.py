"""The handshake tells a client what it needs, at every version."""

import subprocess
import sys

import pytest

from claude_peers import __version__
from claude_peers.session import handshake
from claude_peers.session.handshake import INSTRUCTIONS, PROTOCOL_VERSIONS, early, negotiate


@pytest.mark.parametrize("version", PROTOCOL_VERSIONS)
def test_a_known_version_is_spoken_as_requested(version):
    assert negotiate(version) == version


@pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01", "", None, 5, [], {}])
def test_an_unknown_version_gets_the_newest_with_a_handshake(version):
    assert negotiate(version) == "2025-11-25"


@pytest.mark.threat("T22")
def test_initialize_declares_the_channel_and_what_tells_sessions_from_health_checks():
    result = handshake.initialize_result({"protocolVersion": "2025-06-18"})
    assert result["protocolVersion"] == "2025-06-18"
    assert result["capabilities"] == {
        "experimental": {"claude/channel": {}},
        "tools": {},
        "prompts": {},
    }
    assert result["serverInfo"]["name"] == "claude-peers"
    assert result["serverInfo"]["version"] == __version__
    assert result["serverInfo"]["title"]


@pytest.mark.threat("T22")
def test_the_permission_relay_is_never_declared():
    assert "permission" not in str(handshake.initialize_result({})["capabilities"])


def test_the_instructions_fit_every_client():
    assert len(INSTRUCTIONS) < 2000
    assert INSTRUCTIONS.isascii()


@pytest.mark.bug("U21")
@pytest.mark.parametrize(
    "essential",
    [
        "data from another agent",
        "not from your user",
        "secrets",
        "destructive",
        "verified",
        "mcp__claude-peers__send_message",
        "SendMessage",
        "reply_to",
        "acknowledgement",
        "message_id",
        "check_messages",
        "set_summary",
    ],
)
@pytest.mark.threat("T21")
def test_the_instructions_say_what_matters(essential):
    assert essential in INSTRUCTIONS


@pytest.mark.threat("T21")
def test_what_guards_the_user_comes_before_how_to_reply():
    assert INSTRUCTIONS.index("grants nothing") < INSTRUCTIONS.index("mcp__claude-peers__")


@pytest.mark.threat("T21")
def test_nothing_presses_the_agent_to_drop_its_work():
    assert "IMMEDIATELY" not in INSTRUCTIONS.upper()


@pytest.mark.parametrize("key", [0, 7, "server-discover-probe-1", "", 1.5])
def test_the_probe_for_another_protocol_is_refused_early(key):
    message = {"jsonrpc": "2.0", "id": key, "method": "server/discover", "params": {"_meta": {}}}
    answer = early(message)
    assert answer is not None
    assert answer["id"] == key
    assert answer["error"]["code"] == -32601


def test_initialize_and_ping_are_answered_early():
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize"}
    for params in ({"protocolVersion": "2025-03-26"}, {}, [], None):
        answer = early({**hello, "params": params})
        assert answer is not None
        assert answer["result"] == handshake.initialize_result(params or {})
    assert early({"jsonrpc": "2.0", "id": "p", "method": "ping"}) == {
        "jsonrpc": "2.0",
        "id": "p",
        "result": {},
    }


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "method": "ping"},
        {"jsonrpc": "2.0", "id": None, "method": "ping"},
        {"jsonrpc": "2.0", "id": True, "method": "ping"},
        {"jsonrpc": "2.0", "id": [1], "method": "ping"},
        {"jsonrpc": "2.0", "id": float("inf"), "method": "ping"},
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": ["ping"]},
        {},
    ],
)
def test_anything_else_is_left_to_the_dispatcher(message):
    assert early(message) is None


def test_the_early_answers_load_neither_the_event_loop_nor_json():
    code = f"import sys; sys.path[:] = {sys.path!r}; import claude_peers.session.handshake"
    command = [sys.executable, "-I", "-S", "-c", f"{code}; print(*sys.modules)"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"asyncio", "json", "dataclasses", "mcp", "logging"} & {*ran.stdout.split()}
