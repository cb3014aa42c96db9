"""Hooks on the command line: which file, what is written, what is refused, what is told."""

import json
import os
import subprocess
import sys

import pytest

from claude_peers.cli.commands import hooks as command
from claude_peers.wire import hooks

WAKING = ["SessionStart", "Stop"]
ALL = [*WAKING, "StopFailure", "UserPromptSubmit", "PostToolBatch", "PreToolUse"]
NEW = ("--claude-version", "2.1.330 (Claude Code)")
MINE = '{\n    "model": "opus",\n    "note": "Grüße \\u00fc",  \n    "hooks": {"Stop": []}\n}\n'


@pytest.fixture
def project(machine, monkeypatch):
    folder = machine.folder("project")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def user(machine, project):
    """Return the user's settings file, which is not there."""
    return machine.home / ".claude" / "settings.json"


@pytest.fixture
def mine(user):
    """Return the user's settings file with what a user wrote."""
    user.parent.mkdir()
    user.write_bytes(MINE.encode())
    return user


def claude(machine, monkeypatch, script):
    """Put a `claude` that does this on the PATH, alone."""
    folder = machine.folder("bin")
    program = folder / "claude"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def left_over(file):
    return [each.name for each in file.parent.iterdir() if each.name != file.name]


def test_print_shows_what_to_paste_and_touches_nothing(cli, machine, user):
    ran = cli("hooks", "print", *NEW)
    state = str(machine.home / ".claude-peers.d")
    assert ran.code == 0
    assert ran.value == hooks.settings(state, "claude-peers", (2, 1, 330))
    assert "MCP server claude-peers" in ran.err
    assert not user.parent.exists()


def test_install_and_remove_give_back_the_file_to_the_byte(cli, mine):
    ran = cli("hooks", "install", *NEW)
    assert (ran.code, ran.out) == (
        0,
        f"Installed in {mine}: {', '.join(ALL)}. New sessions use them.\n",
    )
    installed = mine.read_bytes()
    assert list(json.loads(installed)["hooks"]) == ["Stop", *(e for e in ALL if e != "Stop")]
    ran = cli("hooks", "install", *NEW)
    assert (ran.code, ran.out) == (0, f"{mine} has them already: {', '.join(ALL)}.\n")
    assert mine.read_bytes() == installed
    ran = cli("hooks", "remove")
    assert ran.code == 0
    assert ran.out.startswith(f"Removed from {mine}: Stop, SessionStart, ")
    assert mine.read_bytes() == MINE.encode()
    assert left_over(mine) == []


def test_a_file_that_was_not_there_is_gone_again(cli, user):
    assert cli("hooks", "install", *NEW).code == 0
    assert json.loads(user.read_text())["hooks"]
    ran = cli("hooks", "remove")
    assert ran.code == 0
    assert ran.out.endswith("Nothing else was in it, so the file is gone.\n")
    assert not user.exists()


@pytest.mark.parametrize("there", [True, False])
def test_removing_what_is_not_there_says_so(cli, user, there):
    if there:
        user.parent.mkdir()
        user.write_text(MINE)
    ran = cli("hooks", "remove")
    assert (ran.code, ran.out) == (0, f"There are no hooks of claude-peers in {user}.\n")
    assert user.exists() is there


@pytest.mark.parametrize(
    ("told", "events", "note"),
    [
        ("2.1.80", WAKING, "update it to 2.1.118"),
        ("2.1.117", WAKING, "update it to 2.1.118"),
        ("2.1.118", ALL, "MCP server claude-peers"),
        ("2.1.330 (Claude Code)", ALL, "MCP server claude-peers"),
        ("garbage", WAKING, "version of Claude Code is unknown"),
        ("", WAKING, "version of Claude Code is unknown"),
    ],
)
def test_an_older_or_unknown_claude_gets_only_what_it_can_take(cli, user, told, events, note):
    cli("hooks", "install", *NEW)
    ran = cli("hooks", "install", "--claude-version", told)
    assert ran.code == 0
    assert note in ran.err
    assert list(json.loads(user.read_text())["hooks"]) == events


def test_a_claude_that_is_too_old_gets_nothing(cli, mine):
    ran = cli("hooks", "install", "--claude-version", "2.1.79", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.error["code"] == "claude_too_old"
    assert "2.1.79" in ran.error["message"]
    assert mine.read_text() == MINE


def test_without_fifos_only_the_tool_is_called(cli, monkeypatch, user):
    monkeypatch.delattr(os, "mkfifo", raising=False)
    assert cli("hooks", "install", *NEW).code == 0
    assert list(json.loads(user.read_text())["hooks"]) == ALL[3:]
    ran = cli("hooks", "install", "--claude-version", "?")
    assert ran.code == 1
    assert "Claude Code of an unknown version" in ran.err


@pytest.mark.skipif(os.name == "nt", reason="the scripts are run by their first line")
@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("print('2.1.330 (Claude Code)')", "2.1.330"),
        ("print('2.1.117 (Claude Code)')", "2.1.117"),
        ("print('2.1.330'); raise SystemExit(1)", None),
        ("print('hello')", None),
    ],
)
def test_claude_is_asked_for_its_version(cli, machine, monkeypatch, user, script, version):
    claude(machine, monkeypatch, f"import sys; assert sys.argv[1:] == ['--version']; {script}")
    assert cli("hooks", "print", "--json").value["claude_version"] == version


@pytest.mark.skipif(os.name == "nt", reason="the scripts are run by their first line")
def test_a_claude_that_does_not_answer_is_not_waited_for(cli, machine, monkeypatch, user):
    monkeypatch.setattr(command, "WITHIN", 0.2)
    claude(machine, monkeypatch, "import signal; print('2.1.330', flush=True); signal.pause()")
    assert cli("hooks", "print", "--json").value["claude_version"] is None


def test_without_a_claude_its_version_is_unknown(cli, machine, monkeypatch, user):
    monkeypatch.setenv("PATH", str(machine.folder("empty")))
    assert cli("hooks", "print", "--json").value["claude_version"] is None


def test_a_dry_run_shows_the_change_and_makes_none(cli, mine):
    ran = cli("hooks", "install", "--dry-run", *NEW)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[:2] == [f"--- {mine}", f"+++ {mine}"]
    assert [line for line in lines[2:] if line.startswith("-")] == ['-    "hooks": {"Stop": []}']
    assert mine.read_text() == MINE
    cli("hooks", "install", *NEW)
    installed = mine.read_bytes()
    ran = cli("hooks", "remove", "--dry-run", "--json")
    assert '\n+    "hooks": {"Stop": []}\n' in ran.value["diff"]
    assert mine.read_bytes() == installed
    assert cli("hooks", "install", "--dry-run", *NEW).out.startswith(f"{mine} has them already")


def test_a_dry_run_without_a_file_creates_none(cli, user):
    ran = cli("hooks", "install", "--dry-run", *NEW)
    assert ran.out.startswith(f"--- {os.devnull}\n+++ {user}\n@@ -0,0 +1,")
    assert cli("hooks", "remove", "--dry-run").out.startswith("There are no hooks")
    assert not user.parent.exists()


def test_the_shown_change_says_where_a_last_line_does_not_end(cli, user):
    user.parent.mkdir()
    user.write_bytes(b'{\r\n  "a": "\xe2\x80\xa8"\r\n}')
    diff = cli("hooks", "install", "--dry-run", "--json", *NEW).value["diff"]
    assert diff.count("\\ No newline at end of file\n") == 1
    assert ' {\r\n-  "a": "\u2028"\r\n+  "a": "\u2028",\r\n' in diff


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b'{\n  // mine\n  "a": 1\n}\n', "not JSON (line 2, column 3"),
        (b'{"a": "\xff"}', "can't decode"),
        (b"[]", "no JSON object"),
        (b'{"hooks": []}', "not an object of lists"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(cli, user, content, reason):
    user.parent.mkdir()
    user.write_bytes(content)
    for words in (("install", *NEW), ("install", "--dry-run", *NEW)):
        ran = cli("hooks", *words)
        assert (ran.code, ran.out) == (1, "")
        assert f"{user} was left alone: " in ran.err
        assert reason in ran.err
        assert "claude-peers hooks print" in ran.err
    ran = cli("hooks", "remove", "--json")
    assert ran.code == (0 if content == b'{"hooks": []}' else 1)
    assert user.read_bytes() == content
    assert left_over(user) == []


def test_a_folder_in_the_files_place_is_left_alone(cli, user):
    user.mkdir(parents=True)
    ran = cli("hooks", "install", "--json", *NEW)
    assert (ran.code, ran.error["code"]) == (1, "settings_file")
    assert user.is_dir()


def test_a_file_that_cannot_be_replaced_stays_and_no_draft_remains(cli, mine, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    ran = cli("hooks", "install", *NEW)
    assert ran.code == 1
    assert "No space left on device" in ran.err
    assert mine.read_text() == MINE
    assert left_over(mine) == []


@pytest.mark.skipif(os.name == "nt", reason="links and permissions of POSIX")
def test_a_link_stays_one_and_its_target_keeps_its_permissions(cli, machine, user):
    target = machine.folder("dotfiles") / "settings.json"
    target.write_text(MINE)
    target.chmod(0o640)
    user.parent.mkdir()
    user.symlink_to(os.path.relpath(target, user.parent))
    for words in (("install", *NEW), ("remove",)):
        assert cli("hooks", *words).code == 0
        assert user.is_symlink()
        assert target.stat().st_mode & 0o7777 == 0o640
    assert target.read_text() == MINE


def test_each_scope_has_its_file(cli, machine, project, user):
    files = {
        "user": user,
        "project": project / ".claude" / "settings.json",
        "local": project / ".claude" / "settings.local.json",
    }
    for scope, file in files.items():
        ran = cli("hooks", "install", "--scope", scope, "--json", *NEW)
        assert (ran.value["path"], ran.value["scope"]) == (str(file), scope)
        assert file.exists()
    assert cli("hooks", "remove", "--scope", "project").code == 0
    assert [file.exists() for file in files.values()] == [True, False, True]


def test_the_users_configuration_folder_may_be_elsewhere(cli, machine, monkeypatch, user):
    folder = machine.folder("my configuration")
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(folder))
    assert cli("hooks", "install", *NEW).code == 0
    assert (folder / "settings.json").exists()
    assert not user.exists()


def test_the_state_folder_is_the_databases_also_with_spaces_and_quotes(cli, monkeypatch, user):
    monkeypatch.setenv("CLAUDE_PEERS_DB", "/tmp/it's mine/peers.db")
    cli("hooks", "install", *NEW)
    (group,) = json.loads(user.read_text())["hooks"]["Stop"]
    shown = group["hooks"][0]["command"].partition("f=")[2].partition("/wake/")[0]
    echoed = subprocess.run(
        ["/bin/sh", "-c", f"printf %s {shown}"], capture_output=True, text=True, check=True
    )
    assert echoed.stdout == "/tmp/it's mine/peers.d"


def test_the_servers_name_is_the_given_one_or_the_set_one(cli, monkeypatch, user):
    assert "server mine," in cli("hooks", "install", "--server", "mine", *NEW).err
    ran = cli("hooks", "install", "--server", "plugin:p:s", "--json", *NEW)
    assert ran.value["server"] == "plugin:p:s"
    assert '"plugin:p:s"' in user.read_text()
    assert '"mine"' not in user.read_text()
    monkeypatch.setenv("CLAUDE_PEERS_SERVER_NAME", "other")
    assert cli("hooks", "print", "--json", *NEW).value["server"] == "other"
    assert cli("hooks", "print", "--server", "a b", *NEW).code == 2
    monkeypatch.delenv("CLAUDE_PEERS_SERVER_NAME")
    assert cli("hooks", "remove").code == 0
    assert not user.exists()


def test_json_is_one_value_with_everything(cli, mine):
    ran = cli("hooks", "install", "--json", *NEW)
    assert (ran.code, ran.err) == (0, "")
    told = {"action": "install", "scope": "user", "path": str(mine), "changed": True}
    assert ran.value == told | {
        "dry_run": False,
        "events": ALL,
        "claude_version": "2.1.330",
        "server": "claude-peers",
        "notes": ran.value["notes"],
    }
    assert len(ran.value["notes"]) == 1
    assert cli("hooks", "install", "--json", *NEW).value["changed"] is False
    ran = cli("hooks", "remove", "--json")
    assert ran.value["changed"] is True
    assert sorted(ran.value["events"]) == sorted(ALL)
    assert cli("hooks", "remove", "--json").value == told | {
        "action": "remove",
        "changed": False,
        "dry_run": False,
        "events": [],
    }


@pytest.mark.parametrize("words", [(), ("explain",), ("install", "--scope", "managed")])
def test_an_action_and_a_scope_that_are_not_known_are_refused(cli, words):
    assert cli("hooks", *words).code == 2
