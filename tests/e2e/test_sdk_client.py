"""The official SDK's own client, of both major versions, is served over stdio."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.machine import Machine, command

CONVERSATION = Path(__file__).with_name("sdk_conversation.py")
INSTALL = "python3 -m venv .mcp1 && .mcp1/bin/pip install 'mcp<2'"


def interpreter(version: int) -> str:
    """Return a Python that has this major version of the SDK, or skip the test."""
    if version == 2:
        return sys.executable
    given = os.environ.get("CLAUDE_PEERS_MCP1_PYTHON")
    if not given:
        pytest.skip(f"no mcp 1.x: run `{INSTALL}`, name its python in CLAUDE_PEERS_MCP1_PYTHON")
    return given


@pytest.mark.parametrize("version", [1, 2])
def test_two_sessions_of_the_sdks_client_talk(machine: Machine, version: int) -> None:
    result = subprocess.run(
        [interpreter(version), str(CONVERSATION), *command()],
        env=machine.environment(),
        cwd=machine.work,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    steps = json.loads(result.stdout)
    assert steps["protocol"] == "2025-11-25"
    assert {"list_peers", "send_message", "set_summary", "check_messages"} <= set(steps["tools"])
    assert steps["set_summary"].startswith('Summary updated: "I am Bob"')
    assert "Found 1 peer(s) (scope: machine):" in steps["list_peers"]
    assert "I am Bob" in steps["list_peers"]
    assert steps["send_message"].startswith("Message sent to peer ")
    assert "hello Bob" in steps["check_messages"]
    assert "hello Bob" not in steps["check_again"]
    assert steps["unknown_peer"].startswith("ERROR ")
    assert "Peer zzzzzzzz not found" in steps["unknown_peer"]
