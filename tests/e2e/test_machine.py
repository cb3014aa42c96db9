"""The scratch machine notices what a test would rather not know."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import http
from support.machine import MARK, Machine, free_port
from support.mcp import RpcError, Session

ECHO = """
import json, sys
for line in sys.stdin:
    document = json.loads(line)
    if "id" in document:
        error = {"code": -32601, "message": document["method"]}
        print(json.dumps({"jsonrpc": "2.0", "id": document["id"], "error": error}), flush=True)
"""
CHATTY = "print('listening')"
ORPHAN = """
import os, subprocess, sys
null = subprocess.DEVNULL
subprocess.Popen(["sleep", "60"], stdin=null, stdout=null, stderr=null, start_new_session=True)
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine that the test closes itself."""
    machine = Machine(tmp_path / "scratch")
    yield machine
    assert machine.left() == []


def start(machine: Machine, program: str) -> Session:
    session = Session(
        [sys.executable, "-c", program],
        environ=machine.environment(),
        cwd=machine.work,
        log=machine.root / "stderr",
    )
    machine.sessions.append(session)
    return session


def test_an_answer_finds_its_request(scratch: Machine) -> None:
    session = start(scratch, ECHO)
    first, second = session.ask("one"), session.ask("two")

    assert session.answer(second)["error"]["message"] == "two"
    assert session.answer(first)["error"]["message"] == "one"
    with pytest.raises(RpcError, match="three"):
        session.request("three")
    scratch.close()


def test_a_line_that_is_no_json_fails_the_test(scratch: Machine) -> None:
    start(scratch, CHATTY)

    with pytest.raises(AssertionError, match="listening"):
        scratch.close()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_process_that_is_left_behind_is_ended_and_fails_the_test(scratch: Machine) -> None:
    start(scratch, ORPHAN)

    with pytest.raises(AssertionError, match="was left behind"):
        scratch.close(timeout=1)


def test_a_session_that_ends_early_says_so_at_once(scratch: Machine) -> None:
    session = start(scratch, "import sys; sys.exit('no luck')")

    with pytest.raises(AssertionError, match=r"it ended.*no luck"):
        session.answer(1)
    scratch.close()


def test_a_process_on_the_machine_sees_nothing_of_the_users(scratch: Machine) -> None:
    environ = scratch.environment(CLAUDE_PEERS_SUMMARY=None)

    assert environ["HOME"] == str(scratch.home)
    assert environ[MARK] == scratch.mark
    assert "CLAUDE_PEERS_SUMMARY" not in environ
    assert not {name for name in environ if name.startswith(("CLAUDE_CODE", "OPENAI"))}


def test_raw_bytes_reach_the_broker_as_they_are(machine: Machine) -> None:
    machine.serve()

    host = f"Host: 127.0.0.1:{machine.port}"

    request = f"GET /health HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n"
    answer = http.raw(machine.port, request.encode())

    assert answer.startswith(b"HTTP/1.1 200")
    assert machine.broker == machine.processes[0].pid


def test_a_free_port_takes_a_listener() -> None:
    program = f"import socket; socket.create_server(('127.0.0.1', {free_port()})).close()"
    subprocess.run([sys.executable, "-c", program], check=True)
