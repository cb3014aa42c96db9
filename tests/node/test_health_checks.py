"""A client that only looks whether the server answers leaves nothing behind; a real one counts.

The conversations are those of Claude Code, Codex, Gemini, opencode, mcporter and the Inspector.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.machine import Machine, command
from support.mcp import Session
from support.waiting import eventually

SLOW_NEIGHBOUR = 1.0
"""Seconds a check may keep us alive because another server takes so long."""


def claude(session: Session, *, tools: bool = True, prompts: bool = False) -> None:
    session.initialize(client="claude-code")
    if tools:
        session.list_tools()
    if prompts:
        session.list_prompts()


def linger(session: Session) -> None:
    """Stay connected, silently, for as long as a slow neighbour takes."""
    with pytest.raises(subprocess.TimeoutExpired):
        session.process.wait(SLOW_NEIGHBOUR)


def untouched(machine: Machine) -> bool:
    """Whether nobody campaigned: no database, no lock, no listener."""
    state = machine.database.with_suffix(".d")
    return not machine.database.exists() and not state.exists() and machine.broker is None


@pytest.mark.parametrize("tools", [True, False], ids=["with tools/list", "initialize only"])
def test_a_check_by_claude_code_leaves_nothing_however_long_it_lasts(machine: Machine, tools: bool):
    session = machine.session(handshake=False)
    claude(session, tools=tools)

    linger(session)

    assert session.close() == 0
    assert untouched(machine)


def test_a_check_by_gemini_leaves_nothing(machine: Machine):
    session = machine.session(handshake=False)
    session.initialize(client="mcp-test-client")
    session.request("ping")

    linger(session)

    assert session.close() == 0
    assert untouched(machine)


def test_a_probe_leaves_nothing(machine: Machine):
    session = machine.session(handshake=False)
    session.answer(session.ask("server/discover", {}))
    session.answer(session.ask("ping"))

    linger(session)

    assert session.close() == 0
    assert untouched(machine)


def test_a_quick_list_of_tools_leaves_nothing(machine: Machine):
    session = machine.session(handshake=False)
    session.initialize(client="mcporter")
    session.list_tools()

    assert session.close() == 0
    assert untouched(machine)


@contextmanager
def child_of(machine: Machine, *arguments: str) -> Iterator[Session]:
    """Start a session whose parent's command line ends in `arguments`."""
    program = f"import subprocess, sys; sys.exit(subprocess.call({command()!r}))"
    session = Session(
        [sys.executable, "-c", program, *arguments],
        environ=machine.environment(),
        cwd=machine.folder("child"),
        log=machine.root / "child.stderr",
    )
    machine.sessions.append(session)
    yield session


def test_a_check_by_an_unknown_client_is_known_by_its_command_line(machine: Machine):
    with child_of(machine, "x", "mcp", "list") as session:
        session.initialize(client="opencode")
        session.list_tools()

        linger(session)

        assert session.close() == 0
    assert untouched(machine)


def test_the_same_client_in_earnest_counts(machine: Machine):
    with child_of(machine, "x", "run") as session:
        session.initialize(client="opencode")
        session.list_tools()

        eventually(lambda: present(machine) == ["opencode 1"], what="registration")


def test_a_check_from_within_a_session_does_not_count_as_that_session(machine: Machine):
    record_for(machine, os.getpid())
    with child_of(machine, "claude", "mcp", "list") as session:
        claude(session)

        linger(session)

        assert session.close() == 0
    assert untouched(machine)


def prompts(session: Session) -> None:
    claude(session, prompts=True)


def tool_call(session: Session) -> None:
    claude(session)
    session.call("whoami")


def tools_and_time(session: Session) -> None:
    session.initialize(client="codex-mcp-client")
    session.list_tools()


def time_alone(session: Session) -> None:
    session.initialize(client="a bench")


@pytest.mark.parametrize("behave", [prompts, tool_call, tools_and_time, time_alone])
def test_a_real_session_counts(machine: Machine, behave: Callable[[Session], Any]):
    session = machine.session(handshake=False)

    behave(session)

    assert machine.peer_id(session)
    assert machine.broker == session.pid


def test_a_record_of_the_session_is_a_sign_of_life(machine: Machine):
    record_for(machine, os.getpid())
    session = machine.session(handshake=False)

    claude(session)

    assert machine.peer_id(session)


def test_a_socket_of_the_session_is_a_sign_of_life(machine: Machine):
    socket = f"/run/somewhere/{os.getpid()}.sock"
    session = machine.session(handshake=False, CLAUDE_CODE_MESSAGING_SOCKET=socket)

    claude(session, tools=False)

    assert machine.peer_id(session)


def record_for(machine: Machine, pid: int) -> Path:
    """Leave a record as Claude Code does for a session that runs as `pid`."""
    folder = machine.home / ".claude" / "sessions"
    folder.mkdir(parents=True)
    record = folder / f"{pid}.json"
    record.write_text(f'{{"pid": {pid}, "sessionId": "5e55-10"}}')
    return record


def present(machine: Machine) -> list[str]:
    try:
        return [peer["agent_type"] for peer in machine.peers()]
    except OSError:
        return []
