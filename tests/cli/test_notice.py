"""What the hooks of other clients are answered, and how they come into a file."""

import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from claude_peers.cli.commands import notice
from claude_peers.host import processes
from claude_peers.wire import turn_hooks

ROOT = Path(__file__).parents[2]
PROMPT = {"hook_event_name": "UserPromptSubmit", "prompt": "go"}


@pytest.fixture
def hook(cli, monkeypatch):
    """Return what calls the command with an event on stdin."""

    def hook(event):
        raw = event if isinstance(event, bytes) else json.dumps(event).encode()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
        return cli("notice")

    return hook


@pytest.fixture
def mine(machine):
    """Return the session of this process, as a client's server and hooks are of one client."""
    machine.serve()
    session = machine.session()
    session.list_prompts()
    return session, machine.peer_id(session)


@pytest.fixture
def a_hook_of_ours(monkeypatch):
    """Let the command be a child of this process, as the session is."""
    real = processes.ancestors

    def ancestors(pid, most=4):
        return [pid, *real(pid, most)][:most] if pid == os.getpid() else real(pid, most)

    monkeypatch.setattr(processes, "ancestors", ancestors)


@pytest.mark.usefixtures("a_hook_of_ours")
def test_unread_mail_is_told_and_stays_unread(hook, machine, mine):
    _, peer_id = mine
    assert hook(PROMPT).value == {}
    machine.run("send", peer_id, "the text itself")

    for _ in range(2):
        told = hook(PROMPT).value["hookSpecificOutput"]["additionalContext"]
        assert told == turn_hooks.notice(["cli"])
        assert "the text itself" not in told
    assert "the text itself" in machine.run("inbox", "--of", peer_id).stdout


def test_a_client_of_another_process_is_told_nothing(hook, machine, mine, monkeypatch):
    _, peer_id = mine
    machine.run("send", peer_id, "not for this hook")
    monkeypatch.setattr(notice, "LEVELS", 0)
    assert hook(PROMPT).value == {}


def test_where_nobody_leads_there_is_nothing_to_tell(hook):
    ran = hook(PROMPT)
    assert (ran.code, ran.value) == (0, {})


def test_another_implementation_is_not_asked(hook, upstream):
    assert hook(PROMPT).value == {}


@pytest.mark.parametrize("raw", [b"", b"go", b"[]"])
def test_what_is_no_event_is_refused_with_the_remedy(hook, raw):
    ran = hook(raw)
    assert ran.code == 2
    assert "hooks install --client codex" in ran.err


def test_without_stdin_it_says_the_same(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert cli("notice").code == 2


@pytest.mark.parametrize(
    ("client", "place", "variable", "elsewhere"),
    [
        ("codex", ".codex/hooks.json", "CODEX_HOME", "hooks.json"),
        ("gemini", ".gemini/settings.json", "GEMINI_CLI_HOME", ".gemini/settings.json"),
    ],
)
def test_hooks_are_installed_where_the_client_looks(
    cli, machine, monkeypatch, client, place, variable, elsewhere
):
    folder = machine.folder("project")
    monkeypatch.chdir(folder)
    words = ("hooks", "install", "--client", client)
    for root, more in ((machine.home, ()), (folder, ("--scope", "project"))):
        assert cli(*words, *more).code == 0
        held = json.loads((root / place).read_text())
        (entry,) = held["hooks"][turn_hooks.DIALECTS[client].ends][0]["hooks"]
        assert entry["command"].endswith(" -m claude_peers notice")
    monkeypatch.setenv(variable, str(folder / "other"))
    assert cli(*words).code == 0
    assert (folder / "other" / elsewhere).exists()
    assert cli("hooks", "remove", "--client", client).code == 0
    assert not (folder / "other" / elsewhere).exists()
    assert (machine.home / place).exists()


def test_a_program_on_the_path_is_called_by_its_name(cli, machine, monkeypatch):
    program = machine.folder("bin") / "claude-peers"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    ran = cli("hooks", "print", "--client", "gemini", "--json")
    assert ran.value["settings"] == turn_hooks.settings("gemini", "claude-peers notice")
    assert (ran.value["client"], ran.value["notes"]) == ("gemini", [])


def test_codex_users_are_told_that_a_hook_must_be_trusted(cli):
    assert "/hooks" in cli("hooks", "print", "--client", "codex").err


def test_a_scope_that_a_client_does_not_have_is_refused(cli):
    ran = cli("hooks", "install", "--client", "codex", "--scope", "local")
    assert ran.code == 2
    assert "--scope user or project" in ran.err


@pytest.mark.parametrize("client", turn_hooks.DIALECTS)
def test_the_documentation_shows_the_hooks_as_they_are(client):
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    assert turn_hooks.settings(client, "claude-peers notice") in shown
