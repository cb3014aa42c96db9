"""Real Claude Code clients, offline, find each other through the product and talk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.machine import KEPT_PREFIXES, command
from support.node_tools import claude

HARNESS = Path(__file__).with_name("real_client.py")


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("clients", [2, 3])
def test_each_client_gets_its_message_once_and_nothing_is_left_running(clients: int) -> None:
    passed_on = [
        f"--env={name}={value}"
        for name, value in os.environ.items()
        if name.startswith(KEPT_PREFIXES)
    ]
    harness = (
        *(sys.executable, str(HARNESS), "--json", f"--claude={claude()}"),
        *(f"-n={clients}", "--settle=2.5", "--push-wait=1", "--env=CLAUDE_PEERS_SUMMARY=off"),
    )

    result = subprocess.run(
        [*harness, *passed_on, "--", *command()], capture_output=True, text=True, check=False
    )

    assert result.stdout, result.stderr
    report = json.loads(result.stdout)
    assert [what for holds, what in report["checks"] if not holds] == []
    assert len(report["clients"]) == clients
    assert result.returncode == 0
