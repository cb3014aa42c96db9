"""The MCP Inspector, another vendor-independent client, sees and calls the tools."""

import json
import subprocess
from typing import Any

import pytest
from support.machine import Machine, command
from support.node_tools import inspector

CORE = {"list_peers", "send_message", "set_summary", "check_messages", "whoami"}


def inspect(machine: Machine, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the Inspector once; it passes on none of our variables but those it is given."""
    environ = machine.environment()
    given = [
        part
        for name, value in environ.items()
        if name.startswith(("CLAUDE_PEERS_", "COVERAGE_", "PYTHON", "XDG_"))
        for part in ("-e", f"{name}={value}")
    ]
    return subprocess.run(
        [*inspector(), "--cli", *command(), *given, *options],
        env=environ,
        cwd=machine.work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_the_inspector_lists_the_tools(machine: Machine, era: str) -> None:
    result = inspect(machine, "--protocol-era", era, "--method", "tools/list")

    assert result.returncode == 0, result.stderr
    tools: list[dict[str, Any]] = json.loads(result.stdout)["tools"]
    assert {tool["name"] for tool in tools} >= CORE


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_the_inspector_calls_the_tools(machine: Machine, era: str) -> None:
    calls = {
        "list_peers": ({"scope": "machine"}, "No other"),
        "set_summary": ({"summary": "looking"}, 'Summary updated: "looking"'),
        "check_messages": ({}, "No new messages."),
    }
    for tool, (arguments, beginning) in calls.items():
        call = ("--method", "tools/call", "--tool-name", tool)
        given = ("--tool-args-json", json.dumps(arguments), "--format", "json")

        result = inspect(machine, "--protocol-era", era, *call, *given)

        assert result.returncode == 0, result.stderr
        content = json.loads(result.stdout)["result"]["content"]
        assert content[0]["text"].startswith(beginning)


def test_the_tools_schemas_are_valid_for_the_inspector(machine: Machine) -> None:
    result = inspect(machine, "--method", "tools/list", "--strict")

    assert result.returncode == 0, result.stderr


def test_a_client_that_insists_on_the_modern_protocol_is_told_no(machine: Machine) -> None:
    result = inspect(machine, "--protocol-era", "modern", "--method", "tools/list")

    assert result.returncode == 1
    assert "server/discover" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
