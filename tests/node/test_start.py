"""How sessions begin and end: all at once, by end of input, by signal, with their parent."""

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from support import http
from support.machine import Machine, command
from support.mcp import Session
from support.traffic import watching
from support.waiting import eventually

from claude_peers.host import processes

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

MANY = 50
HELLO: list[dict[str, Any]] = [
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
    {"id": 2, "method": "prompts/list"},
]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def joined(machine: Machine) -> Session:
    """Return a session that is registered and whose broker it is itself."""
    session = machine.session()
    session.list_prompts()
    machine.peer_id(session)
    return session


@pytest.mark.timeout(300)
@pytest.mark.fault("F6")
def test_fifty_sessions_at_once_on_a_cold_machine_elect_one_leader(machine: Machine):
    with watching(machine.port) as watch:
        sessions = [machine.session(handshake=False) for _ in range(MANY)]
        for each in sessions:
            each.initialize(client="codex-mcp-client")
        for each in sessions:
            each.list_prompts()
        eventually(lambda: there(machine) == {each.pid for each in sessions}, timeout=120)
        answers = [each.call("whoami", timeout=60) for each in sessions]

    assert [text for text, failed in answers if failed] == []
    assert len({text.split()[1] for text, _ in answers}) == MANY
    assert len(watch.leaders) == 1
    assert http.get(machine.port, "/status").json()["epoch"] == 1

    last = machine.leader()
    for each in sessions:
        if each is not last:
            each.end_input()
    for each in sessions:
        if each is not last:
            assert each.close(30) == 0
    eventually(lambda: there(machine) == {last.pid}, what="only the leader")
    assert last.close() == 0
    assert machine.left() == []
    after = machine.session()
    after.list_prompts()
    machine.peer_id(after)
    assert there(machine) == {after.pid}


def there(machine: Machine) -> set[int]:
    try:
        return {peer["pid"] for peer in machine.peers()}
    except OSError:
        return set()


@pytest.mark.bug("U4")
def test_a_session_ends_at_the_end_of_its_input(machine: Machine):
    session = joined(machine)

    assert session.close(5) == 0
    assert machine.left() == []


def test_a_session_that_asked_for_nothing_ends_at_the_end_of_its_input(machine: Machine):
    session = machine.session(handshake=False)

    assert session.close(5) == 0


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_session_ends_at_a_signal_although_its_input_is_open(machine: Machine, number: int):
    session = joined(machine)

    session.kill(number)

    assert session.process.wait(5) == 0


@posix
@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
@pytest.mark.fault("F7")
def test_a_suspended_terminal_does_not_suspend_the_broker(machine: Machine, number: int):
    session = joined(machine)

    session.kill(number)

    assert session.call("whoami")[1] is False
    assert not processes.is_stopped(session.pid)
    assert machine.broker == session.pid


@pytest.mark.skipif(sys.platform != "linux", reason="parents are watched by pidfd")
@pytest.mark.fault("F5")
def test_a_session_ends_with_its_parent_although_its_input_stays_open(machine: Machine):
    reading, writing = os.pipe()
    session = None
    try:
        shell = subprocess.Popen(
            ["sh", "-c", '"$@"; exit 0', "sh", *command()],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=machine.environment(),
            cwd=machine.work,
        )
        machine.processes.append(shell)
        for line in HELLO:
            os.write(writing, json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n")
        session = machine.wait_for_broker()
        assert processes.parent_of(session) == shell.pid
        process = processes.identify(session)
        assert process is not None

        shell.kill()
        shell.wait(10)

        eventually(lambda: not processes.alive(process), timeout=5, what="the session's end")
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.bug("U4")
@posix
def test_a_session_leaves_the_roster_when_it_ends(machine: Machine):
    joined(machine)
    second = machine.session()
    second.list_prompts()
    machine.peer_id(second)

    second.kill(signal.SIGTERM)

    eventually(lambda: second.pid not in there(machine), what="leaving")


def test_a_slow_model_endpoint_does_not_delay_the_end(machine: Machine):
    with socket.create_server(("127.0.0.1", 0)) as endpoint:
        endpoint.settimeout(30)
        session = machine.session(
            CLAUDE_PEERS_SUMMARY="openai",
            OPENAI_API_KEY="key",
            OPENAI_BASE_URL=f"http://127.0.0.1:{endpoint.getsockname()[1]}",
        )
        session.list_prompts()
        connection, _ = endpoint.accept()
        with connection:
            # A thread of its own now waits 5 s for an answer.
            assert session.close(3) == 0
