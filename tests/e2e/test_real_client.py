"""Real Claude Code clients, offline, find each other through the product and talk."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.machine import KEPT_PREFIXES, command
from support.node_tools import claude

HARNESS = Path(__file__).with_name("real_client.py")


pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


def drive(*options: str, **environ: str) -> dict[str, Any]:
    """Let the harness drive the product, and return its report, in which everything holds."""
    kept = {name: text for name, text in os.environ.items() if name.startswith(KEPT_PREFIXES)}
    given = {**kept, "CLAUDE_PEERS_SUMMARY": "off", **environ}
    harness = (sys.executable, str(HARNESS), "--json", f"--claude={claude()}", "--settle=2.5")
    passed_on = (f"--env={name}={value}" for name, value in given.items())

    result = subprocess.run(
        [*harness, *options, *passed_on, "--", *command()],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.stdout, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert [what for holds, what in report["checks"] if not holds] == []
    assert result.returncode == 0
    return report


@pytest.mark.parametrize("clients", [2, 3])
def test_each_client_gets_its_message_once_and_nothing_is_left_running(clients: int) -> None:
    report = drive(f"-n={clients}", "--push-wait=1")

    assert len(report["clients"]) == clients


def test_a_client_whose_inbox_is_used_is_woken_and_gets_everything_once() -> None:
    report = drive("-n=2", "--push-wait=30", "--expect-push", CLAUDE_PEERS_PUSH="inbox")

    assert report["push"]["framing"] == "peer inbox"
