"""How the program is entered: as a session, as a command, or by a person who looks what it is."""

import os
import pty
import runpy
import subprocess
import sys

import pytest
from support.machine import command

from claude_peers import __main__ as program
from claude_peers import __version__
from claude_peers.core.errors import SettingsError
from claude_peers.node import run
from claude_peers.session import early
from claude_peers.session.early import Early


@pytest.fixture
def entered(monkeypatch):
    """Return what was called instead of a real session."""
    calls = []

    def session(chosen, left, *, problem):
        calls.append((chosen, left, problem))

    monkeypatch.setattr(run, "session", session)
    monkeypatch.setattr(run, "start_logging", lambda _chosen, *, verbose: calls.append(verbose))
    monkeypatch.setattr(early, "greet", lambda: Early(b"rest", {"a": 1}))
    monkeypatch.setattr(sys, "stdin", None)
    for name in [*os.environ]:
        if name.startswith(("CLAUDE_PEERS", "AGENTMESH")):
            monkeypatch.delenv(name)
    return calls


def enter(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["claude-peers", *words])
    program.main()


def test_without_arguments_it_is_a_session_that_was_greeted_first(monkeypatch, entered):
    enter(monkeypatch)
    verbose, (chosen, left, problem) = entered
    assert (verbose, left, problem) == (False, Early(b"rest", {"a": 1}), None)
    assert chosen.port == 7899


def test_verbose_is_for_the_log(monkeypatch, entered):
    enter(monkeypatch, "--verbose")
    assert entered[0] is True


def test_the_sdk_gets_the_whole_conversation(monkeypatch, entered):
    monkeypatch.setenv("CLAUDE_PEERS_MCP", "sdk")
    enter(monkeypatch)
    assert entered[1][1] == Early()


def test_a_bad_setting_is_told_and_the_session_starts_all_the_same(monkeypatch, entered, capsys):
    monkeypatch.setenv("CLAUDE_PEERS_PORT", "many")
    enter(monkeypatch)
    _, (chosen, left, problem) = entered
    assert left.params == {"a": 1}
    assert isinstance(problem, SettingsError)
    assert chosen.port == 7899
    assert capsys.readouterr().err.startswith("claude-peers: CLAUDE_PEERS_PORT='many'")


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["help"], 0), (["cli"], 0), (["frobnicate"], 2)]
)
def test_with_arguments_it_is_the_command_line(monkeypatch, entered, capsys, words, code):
    with pytest.raises(SystemExit) as ended:
        enter(monkeypatch, *words)
    assert ended.value.code == code
    assert entered == []


def test_it_can_be_run_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["claude-peers", "--version"])
    monkeypatch.delitem(sys.modules, "claude_peers.__main__")
    with pytest.raises(SystemExit):
        runpy.run_module("claude_peers", run_name="__main__")
    assert capsys.readouterr().out == f"claude-peers {__version__}\n"


def test_a_person_at_a_terminal_reads_what_it_is(machine):
    ours, theirs = pty.openpty()
    try:
        ran = subprocess.run(
            command(),
            stdin=theirs,
            capture_output=True,
            text=True,
            env=machine.environment(),
            cwd=machine.work,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.returncode == 0
    assert "Without arguments it is an MCP server" in ran.stdout


def test_no_input_at_all_ends_it_without_a_trace(machine):
    ran = machine.run()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert not (machine.home / ".claude-peers.d").exists()


@pytest.mark.parametrize("face", ["own", "sdk"])
def test_both_faces_hold_a_conversation_from_end_to_end(machine, face):
    alpha, beta = (
        machine.session(CLAUDE_PEERS_NAME=name, CLAUDE_PEERS_MCP=face) for name in ("alpha", "beta")
    )
    assert {each["name"] for each in alpha.list_tools()} >= {"list_peers", "check_messages"}
    assert "Name: beta" not in alpha.call("list_peers")[0]
    beta.call("whoami")
    assert "Name: beta" in alpha.call("list_peers")[0]
    assert "state queued" in alpha.call("send_message", to_id="beta", message="hi")[0]
    assert beta.wait_for_push("hi")["meta"]["from_name"] == "alpha"
    assert beta.call("check_messages")[0].endswith("hi")
    assert beta.call("check_messages")[0] == "No new messages."
    alpha.kill()
    assert beta.call("list_peers")[0].startswith("No other peers found")
