"""Which agent started a session, by what it may be known again, and whether it shows pushes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from claude_peers.host import processes
from claude_peers.session import agent
from claude_peers.session.agent import Agent, channel_proven, find, keys

CLAUDE = {"name": "claude-code", "version": "2.1.330"}
CODEX = {"name": "codex-mcp-client", "version": "0.169"}
ME, PARENT, GRANDPARENT = 40, 30, 20


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be process 40, child of 30, child of 20."""
    monkeypatch.setattr(os, "getpid", lambda: ME)
    monkeypatch.setattr(os, "getppid", lambda: PARENT)
    monkeypatch.setattr(processes, "ancestors", lambda pid, most: [PARENT, GRANDPARENT, 10, 1])
    monkeypatch.setattr(processes, "start_time", lambda pid: f"t{pid}")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "sessions").mkdir()
    return tmp_path


def leave_record(config: Path, pid: int, told: object) -> dict[str, str]:
    """Write a record as Claude Code does; return the environment that finds it."""
    text = told if isinstance(told, str) else json.dumps(told)
    (config / "sessions" / f"{pid}.json").write_text(text)
    return {"CLAUDE_CONFIG_DIR": str(config)}


pytestmark = pytest.mark.usefixtures("family")


def test_a_record_of_an_ancestor_names_agent_and_session(config):
    environ = leave_record(config, GRANDPARENT, {"pid": GRANDPARENT, "sessionId": "s-1"})

    found = find(CLAUDE, environ)

    assert found == Agent(
        client="claude-code 2.1.330", pid=GRANDPARENT, session_id="s-1", matched=True
    )


def test_the_nearest_ancestor_with_a_record_is_the_agent(config):
    leave_record(config, GRANDPARENT, {"pid": GRANDPARENT, "sessionId": "outer"})
    environ = leave_record(config, PARENT, {"pid": PARENT, "sessionId": "inner"})

    assert find(CLAUDE, environ).session_id == "inner"


def test_records_lie_under_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".claude" / "sessions").mkdir(parents=True)
    leave_record(tmp_path / ".claude", PARENT, {"pid": PARENT, "sessionId": "s-1"})

    assert find(CLAUDE, {}).session_id == "s-1"


@pytest.mark.parametrize(
    "told",
    [{"pid": 99, "sessionId": "x"}, {"sessionId": "x"}, [], "", "{", '"text"'],
    ids=str,
)
def test_a_record_that_does_not_name_its_process_is_ignored(config, told):
    environ = leave_record(config, PARENT, told)

    assert find(CLAUDE, environ) == Agent(client="claude-code 2.1.330", pid=PARENT)


def test_a_socket_named_after_an_ancestor_identifies_the_agent():
    environ = {
        "CLAUDE_CODE_MESSAGING_SOCKET": f"/run/user/0/{GRANDPARENT}.sock",
        "CLAUDE_CODE_SESSION_ID": "s-2",
    }

    found = find(CLAUDE, environ)

    assert (found.pid, found.session_id, found.matched) == (GRANDPARENT, "s-2", True)


def test_inherited_variables_of_another_session_are_not_believed():
    environ = {
        "CLAUDE_CODE_MESSAGING_SOCKET": "/run/user/0/77.sock",
        "CLAUDE_CODE_SESSION_ID": "outer",
    }

    assert find(CLAUDE, environ) == Agent(client="claude-code 2.1.330", pid=PARENT)


def test_another_client_is_itself_whatever_it_inherits(config):
    environ = leave_record(config, PARENT, {"pid": PARENT, "sessionId": "outer"}) | {
        "CLAUDE_CODE_MESSAGING_SOCKET": f"/run/user/0/{PARENT}.sock",
        "CLAUDE_CODE_SESSION_ID": "outer",
    }

    assert find(CODEX, environ) == Agent(client="codex-mcp-client 0.169", pid=PARENT)


def test_a_client_that_says_nothing_of_itself_is_known_by_its_process():
    assert find({}, {}) == Agent(client="", pid=PARENT)


# Keys


def test_claude_code_is_known_again_by_process_and_by_session():
    one = Agent(client="claude-code 2", pid=PARENT, session_id="s-1", matched=True)
    other = Agent(client="claude-code 3", pid=GRANDPARENT, session_id="s-1", matched=True)

    live, resume = keys(one, "/a")
    other_live, other_resume = keys(other, "/b")

    assert live.startswith("live:") and resume.startswith("resume:")
    assert resume == other_resume
    assert live != other_live


@pytest.mark.parametrize(
    "line",
    [
        "claude",
        "/home/u/.local/bin/claude --resume",
        "node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js",
        r"C:\Users\u\.local\bin\claude.exe -c",
    ],
)
def test_without_a_record_claude_code_is_known_by_its_process_alone(arguments, line):
    arguments[:] = line.split()

    found = keys(Agent(client="claude-code 2", pid=PARENT), "/a")

    assert [key.split(":")[0] for key in found] == ["live"]


@pytest.mark.parametrize("line", ["", "python bench.py claude", "sh -c claude-peers"])
def test_a_script_that_calls_itself_claude_code_is_no_agent_process(arguments, line):
    arguments[:] = line.split()

    found = keys(Agent(client="claude-code 2", pid=PARENT), "/a")

    assert [key.split(":")[0] for key in found] == ["launch"]


@pytest.mark.parametrize("name", ["codex 1", "claude-codex 1", "claude-code-fork 1", ""])
def test_another_client_is_known_by_parent_directory_and_name(name):
    found = keys(Agent(client=name, pid=PARENT, session_id="s-1"), "/a")

    assert [key.split(":")[0] for key in found] == ["launch"]
    assert found == keys(Agent(client=name, pid=PARENT), "/a")
    assert found != keys(Agent(client=name, pid=PARENT), "/b")
    assert found != keys(Agent(client=name, pid=GRANDPARENT), "/a")
    assert found != keys(Agent(client=name + "x", pid=PARENT), "/a")


@pytest.mark.parametrize("fact", ["boot_id", "pid_namespace", "start_time"])
@pytest.mark.parametrize("client", ["claude-code 2", "codex 1"])
def test_a_pid_of_another_boot_namespace_or_time_is_another_process(monkeypatch, fact, client):
    one = Agent(client=client, pid=PARENT, session_id="s-1", matched=True)
    process, *session = keys(one, "/a")
    monkeypatch.setattr(processes, fact, lambda *_: "another")

    other, *session_there = keys(one, "/a")

    assert process != other
    assert session == session_there


def test_keys_tell_nothing_about_the_session():
    told = keys(Agent(client="claude-code 2", pid=PARENT, session_id="secret-session"), "/a")

    assert "secret-session" not in " ".join(told)


# The channel flag


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the parent's command line, for the test to fill."""
    words: list[str] = []
    monkeypatch.setattr(processes, "command_line", lambda pid: words if pid == PARENT else [])
    return words


ONE = Agent(client="claude-code 2", pid=PARENT, matched=True)


@pytest.mark.parametrize(
    "line",
    [
        "claude --dangerously-load-development-channels server:claude-peers",
        "claude --dangerously-load-development-channels=server:claude-peers",
        "claude --channels server:claude-peers",
        "claude --channels plugin:x@y server:claude-peers --model x",
        "sh -c x --model y --channels server:other server:claude-peers",
    ],
)
def test_the_channel_flag_for_this_server_proves_the_channel(arguments, line):
    arguments[:] = line.split()

    assert channel_proven(ONE, "claude-peers", {})


@pytest.mark.parametrize(
    "line",
    [
        "claude",
        "claude server:claude-peers",
        "claude --channels",
        "claude --channels server:other",
        "claude --channels --model server:claude-peers",
        "claude --channels=server:claude-peers-2",
        "claude --model server:claude-peers",
    ],
)
def test_another_command_line_does_not(arguments, line):
    arguments[:] = line.split()

    assert not channel_proven(ONE, "claude-peers", {})


def test_the_name_in_the_agents_configuration_decides(arguments):
    arguments[:] = ["claude", "--channels", "server:mesh"]

    assert channel_proven(ONE, "mesh", {})


@pytest.mark.parametrize("variable", agent.CHANNEL_OFF)
def test_what_turns_telemetry_off_turns_channels_off(arguments, variable):
    arguments[:] = ["claude", "--channels", "server:claude-peers"]

    assert not channel_proven(ONE, "claude-peers", {variable: "1"})
    assert channel_proven(ONE, "claude-peers", {variable: ""})


PROGRAM = """
import json, os, sys
from claude_peers.session.agent import find
print(json.dumps(find({"name": "claude-code"}, os.environ).pid))
"""


def test_the_real_parents_record_is_found(config, monkeypatch):
    monkeypatch.undo()
    environ = leave_record(config, os.getpid(), {"pid": os.getpid(), "sessionId": "s"})

    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environ},
        capture_output=True,
        check=True,
    )

    assert json.loads(told.stdout) == os.getpid()
