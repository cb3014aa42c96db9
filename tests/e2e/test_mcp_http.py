"""MCP clients of other makers use `/mcp` as they are, also across a take-over."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.test_sdk_client import interpreter
from support.bearer_proxy import bearer_proxy
from support.machine import Machine
from support.node_tools import conformance, inspector

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

CONVERSATION = Path(__file__).with_name("sdk_http_conversation.py")
SCENARIOS = ("server-initialize", "ping", "tools-list", "prompts-list", "dns-rebinding-protection")
"""Those of the suite's server scenarios that need no tools of its own on the server."""


def configuration(machine: Machine, name: str) -> str:
    """Return what a client named so is configured with."""
    made = machine.run("token", name)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


class Conversation:
    """The two clients, held in the middle."""

    def __init__(self, machine: Machine, version: int) -> None:
        given = [configuration(machine, name) for name in ("alice", "bob")]
        self.process = subprocess.Popen(
            [interpreter(version), str(CONVERSATION), *given],
            env=machine.environment(),
            cwd=machine.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        machine.processes.append(self.process)

    def until_change(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "change\n", line or self.process.communicate(timeout=60)[1]

    def rest(self) -> dict[str, Any]:
        """Let it go on; return what each step returned."""
        out, err = self.process.communicate("\n", timeout=90)
        assert self.process.returncode == 0, err
        return dict(json.loads(out))


@pytest.mark.parametrize("version", [1, 2])
def test_two_of_the_sdks_clients_talk_across_a_take_over(machine: Machine, version: int) -> None:
    interpreter(version)
    machine.serve()
    leader = machine.wait_for_broker()
    session = machine.session()
    machine.peer_id(session)
    conversation = Conversation(machine, version)
    conversation.until_change()

    (dying,) = [each for each in machine.processes if each.pid == leader]
    dying.send_signal(signal.SIGKILL)
    dying.wait(10)
    assert machine.wait_for_broker(other_than=leader) == session.pid
    steps = conversation.rest()

    assert steps["protocol"] == "2025-11-25"
    assert {"list_peers", "send_message", "check_messages"} <= set(steps["tools"])
    assert "I am Bob" in steps["list_peers"]
    sent = [*steps["before"], *steps["after"]]
    assert [text.partition("\n")[0].partition(" peer ")[0] for text in sent] == [
        "Message sent to"
    ] * 6
    told = re.findall(r"(before|after) (\d)\.", steps["wait_for_message"])
    assert told == [(when, str(n)) for when in ("before", "after") for n in range(3)]
    assert steps["check_again"] == "No new messages."
    assert "Peer zzzzzzzz not found" in steps["unknown_peer"]
    ledger = machine.post("/ledger")
    assert (ledger["accepted"], ledger["balanced"]) == (6, True)


def run(machine: Machine, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run another vendor's program to its end."""
    return subprocess.run(
        command,
        env=machine.environment(),
        cwd=machine.work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def inspect(machine: Machine, given: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the Inspector once, against the URL and with the headers of a configuration."""
    told = json.loads(given)
    headers = [f"{name}: {value}" for name, value in told["headers"].items()]
    return run(machine, [*inspector(), "--cli", told["url"], "--header", *headers, *options])


@pytest.mark.parametrize("era", ["auto", "legacy", "modern"])
def test_the_inspector_lists_and_calls_the_tools(machine: Machine, era: str) -> None:
    machine.serve()
    given = configuration(machine, "looker")
    listed = inspect(machine, given, "--protocol-era", era, "--method", "tools/list")
    assert listed.returncode == 0, listed.stderr
    names = {each["name"] for each in json.loads(listed.stdout)["tools"]}
    assert {"list_peers", "send_message", "check_messages", "wait_for_message"} <= names

    call = ("--method", "tools/call", "--tool-name", "whoami", "--format", "json")
    called = inspect(machine, given, "--protocol-era", era, *call)
    assert called.returncode == 0, called.stderr
    assert "Name: looker" in json.loads(called.stdout)["result"]["content"][0]["text"]


def test_the_inspector_is_told_what_a_wrong_token_is(machine: Machine) -> None:
    machine.serve()
    wrong = json.loads(configuration(machine, "looker"))
    wrong["headers"]["Authorization"] = f"Bearer {'0' * 64}"
    refused = inspect(machine, json.dumps(wrong), "--method", "tools/list")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_conformance_suite_is_satisfied(machine: Machine, scenario: str) -> None:
    suite = conformance()
    machine.serve()
    token = json.loads(configuration(machine, "tester"))["headers"]["Authorization"].split()[1]
    with bearer_proxy(machine.port, token) as port:  # the suite cannot be given a header
        url = f"http://127.0.0.1:{port}/mcp"
        ran = run(machine, [*suite, "server", "--url", url, "--scenario", scenario])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r"Passed: (\d+)/(\d+), 0 failed, 0 warnings", ran.stdout)
    assert passed is not None, ran.stdout
    assert int(passed[1]) == int(passed[2]) > 0
