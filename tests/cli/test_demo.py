"""The demonstration: what it promises, what it prints, and that a loss does not go unnoticed."""

import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from claude_peers.cli import agent
from claude_peers.cli.agent import Agent, SilentError, own_command
from claude_peers.cli.commands import demo


@pytest.fixture
def story(cli, machine, monkeypatch):
    """Return what runs a demonstration in this process; nothing of it may be left."""
    scratch = machine.folder("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine.home / "cache"))
    started = []
    create = subprocess.Popen

    class Recorded(create):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            if str(kwargs.get("cwd", "")).startswith(str(scratch)):
                started.append(self)

    monkeypatch.setattr(agent.subprocess, "Popen", Recorded)
    yield lambda *words: cli("demo", *words)
    assert [*scratch.iterdir()] == []
    assert all(each.poll() is not None for each in started)


def test_it_loses_nothing_and_takes_over(story):
    ran = story("--json")
    assert (ran.code, ran.err) == (0, "")
    told = ran.value
    assert told["ok"] is True
    assert told["sent"] == told["delivered"] == 5 + demo.AFTER_THE_CRASH
    assert told["lost"] == told["duplicates"] == 0
    assert told["takeover_ms"] > 0
    assert told["push_ms"] > 0
    assert told["error"] is None


def test_people_read_a_story_with_its_sum_at_the_end(story):
    ran = story()
    assert (ran.code, ran.err) == (0, "")
    sent = 5 + demo.AFTER_THE_CRASH
    assert f"sent {sent} · delivered {sent} · lost 0 · push " in ran.out
    assert "✔" in ran.out
    for part in (
        r"planner +pid \d+, answered in \d+ ms, leads: it is the broker",
        r"builder +pid \d+, answered in \d+ ms, joined",
        r"planner +list_peers finds ",
        r"builder +← pushed from planner after \d+\.\d ms",
        r"planner +killed: pid \d+, epoch 1",
        r"took over in \d+ ms .*, epoch 2",
        r"planner +pid \d+, id [a-z0-9]{8}: the same as before",
        r"Next: claude mcp add --scope user claude-peers -- ",
    ):
        assert re.search(part, ran.out), part


def test_it_runs_as_a_process_of_its_own(machine):
    ran = machine.run("demo", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"lost": 0' in ran.stdout


def test_it_leaves_the_users_own_broker_alone(cli, machine, story):
    machine.serve()
    before = cli("status", "--json").value
    assert story("--json").code == 0
    after = cli("status", "--json").value
    assert (after["pid"], after["epoch"], after["peers"]) == (before["pid"], 1, [])


def swallowing(monkeypatch, tool):
    """Let one call of a tool say that it succeeded, and do nothing."""
    call = Agent.call
    left = [None]

    def lying(self, name, **arguments):
        if name == tool and left and "[demo 3]" in str(arguments):
            left.pop()
            return "Message sent"
        return call(self, name, **arguments)

    monkeypatch.setattr(Agent, "call", lying)
    monkeypatch.setattr(agent, "WITHIN", 2.0)
    monkeypatch.setattr(Agent.next_push, "__defaults__", (0.2,))


def test_a_message_that_no_agent_sees_is_a_loss(story, monkeypatch):
    swallowing(monkeypatch, "send_message")
    ran = story("--json")
    assert ran.code == 1
    assert ran.value["ok"] is False
    assert ran.value["lost"] >= 1
    assert "No push reached" in ran.value["error"]


def test_a_loss_is_told_to_people_as_well(story, monkeypatch):
    seen = demo.Story._read

    def forgetful(self, name):
        last = seen(self, name)
        self._tally.seen.pop(1, None)
        return last

    monkeypatch.setattr(demo.Story, "_read", forgetful)
    ran = story()
    assert ran.code == 1
    assert "lost 1 ·" in ran.out
    assert "✘" in ran.out


def test_a_message_that_an_agent_sees_twice_is_a_failure(story, monkeypatch):
    seen = demo.Story._read

    def doubled(self, name):
        last = seen(self, name)
        self._tally.seen[1] = 2
        return last

    monkeypatch.setattr(demo.Story, "_read", doubled)
    ran = story("--json")
    assert (ran.code, ran.value["duplicates"], ran.value["lost"]) == (1, 1, 0)


def test_another_identity_after_the_crash_would_be_told(story, monkeypatch):
    real, asked = demo.Story._id_of, []

    def changing(self, name):
        asked.append(name)
        return real(self, name) if len(asked) <= len(demo.NAMES) else "another"

    monkeypatch.setattr(demo.Story, "_id_of", changing)
    assert "NOT the one it had" in story().out


def test_sessions_that_do_not_lead_end_the_story_with_the_reason(story, monkeypatch):
    monkeypatch.setattr(demo.Story, "_status", lambda _self: {})
    ran = story()
    assert ran.code == 1
    assert "None of the sessions leads" in ran.out


def test_a_session_that_does_not_start_ends_the_story_with_the_reason(story, monkeypatch):
    monkeypatch.setattr(agent, "own_command", lambda: [sys.executable, "-c", "pass"])
    monkeypatch.setattr(agent, "WITHIN", 0.5)
    ran = story("--json")
    assert (ran.code, ran.value["sent"]) == (1, 0)
    assert ran.value["error"].startswith("planner ")


# The tiny agent


def scripted(monkeypatch, program):
    monkeypatch.setattr(agent, "own_command", lambda: [sys.executable, "-c", program])


ECHO = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": 99, "result": {}}))
        answer = {"jsonrpc": "2.0", "id": asked["id"], "ANSWER": {"content": []}}
        print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def start(machine, monkeypatch):
    """Return what starts an agent whose session is a little program; it is ended."""
    agents = []

    def started(program):
        scripted(monkeypatch, program)
        agents.append(Agent("a", machine.environment(), str(machine.work)))
        return agents[-1]

    yield started
    for each in agents:
        each.kill()


def test_answers_that_nobody_waits_for_are_passed_over(start):
    assert start(ECHO.replace("ANSWER", "result")).call("whoami") == ""


def test_a_tool_that_fails_is_an_error(start):
    made = start(ECHO.replace("ANSWER", "error"))
    with pytest.raises(SilentError, match="whoami of a failed"):
        made.call("whoami")


def test_a_session_that_ended_is_an_error(start):
    made = start(ECHO.replace("ANSWER", "result"))
    made.kill()
    with pytest.raises(SilentError, match="a has ended"):
        made.call("whoami")
    made.close()


def test_silence_is_an_error(start, monkeypatch):
    made = start(ECHO.replace("ANSWER", "result"))
    with pytest.raises(SilentError, match="No push reached a"):
        made.next_push(0.01)
    monkeypatch.setattr(agent, "WITHIN", 0.05)
    made.process.send_signal(signal.SIGSTOP)
    with pytest.raises(SilentError, match="a did not answer"):
        made.call("whoami")


def test_a_session_that_will_not_end_is_killed(start, monkeypatch):
    made = start(ECHO.replace("ANSWER", "result") + "\nimport time\ntime.sleep(600)")
    wait = made.process.wait
    monkeypatch.setattr(made.process, "wait", lambda timeout=None: wait(timeout and 0.05))
    made.close()
    assert made.process.poll() == -9


def test_a_session_is_another_process_of_this_very_program(monkeypatch):
    assert own_command() == [sys.executable, "-m", "claude_peers"]

    class Archive:
        archive = "/x/claude-peers.pyz"

    monkeypatch.setattr(agent.claude_peers, "__loader__", Archive())
    assert own_command() == [sys.executable, "/x/claude-peers.pyz"]


@pytest.mark.parametrize(
    ("name", "told"), [("/x/claude-peers.pyz", "/x/claude-peers.pyz"), ("/y/bin/x", "claude-peers")]
)
def test_the_next_step_names_the_program_as_it_was_called(monkeypatch, name, told):
    monkeypatch.setattr(sys, "argv", [name])
    assert demo._program() == told


def test_no_setting_of_the_user_reaches_the_sessions(monkeypatch):
    monkeypatch.setenv("CLAUDE_PEERS_PORT", "7899")
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    environ = demo._environment("/scratch")
    assert environ["CLAUDE_PEERS_PORT"] != "7899"
    assert environ["CLAUDE_PEERS_DB"] == str(Path("/scratch/demo.db"))
    assert environ["CLAUDE_PEERS_SUMMARY"] == "off"
    assert "canary" not in environ.values()
