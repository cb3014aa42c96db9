"""How text, JSON and errors are printed, and what an exit code means."""

import importlib
import io
import json
import os
import pkgutil
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.machine import command

from claude_peers import broker, client, core, wire
from claude_peers.cli import main, output
from claude_peers.cli.commands import COMMANDS
from claude_peers.client.errors import RefusedError
from claude_peers.core import errors
from claude_peers.core.errors import ClaudePeersError, NoBrokerError

README = Path(__file__).parents[2] / "README.md"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch, **environ):
    """Make stdout a terminal in such an environment."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())


def test_a_terminal_gets_colours(monkeypatch):
    terminal(monkeypatch, TERM="xterm")
    assert output.style("hi", "bold", "green") == "\x1b[1;32mhi\x1b[0m"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_none_gets_none(monkeypatch, name, value):
    terminal(monkeypatch, **{name: value})
    assert output.style("hi", "bold") == "hi"


def test_an_empty_no_color_does_not_count(monkeypatch):
    terminal(monkeypatch, NO_COLOR="")
    assert output.style("hi", "red") == "\x1b[31mhi\x1b[0m"


def test_a_pipe_gets_no_colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.style("hi", "bold") == "hi"


@pytest.mark.parametrize(
    ("environ", "colourful"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_the_overview_on_a_real_terminal(machine, environ, colourful):
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [*command(), "help"],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            env=machine.environment(**{"TERM": "xterm", "NO_COLOR": None, **environ}),
            cwd=machine.work,
            timeout=60,
            check=True,
        )
        shown = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"kill-broker" in shown
    assert (b"\x1b[" in shown) is colourful


def test_an_error_names_fact_and_remedy_on_stderr(capsys):
    code = output.complain(NoBrokerError("There is none", "Start one."), as_json=False)
    assert (code, *capsys.readouterr()) == (6, "", "Failed: There is none\nStart one.\n")


def test_an_error_in_json_is_one_value_on_stderr(capsys):
    error = NoBrokerError("There is none — ü", "Start one.", retry_after=0.5)
    assert output.complain(error, as_json=True) == 6
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err) == {
        "error": {
            "code": "no_broker",
            "message": "There is none — ü",
            "remedy": "Start one.",
            "retry_after": 0.5,
        }
    }


@pytest.mark.parametrize("name", ["ascii", "latin-1", "cp1252"])
def test_no_encoding_can_break_a_command_or_its_json(machine, name):
    machine.serve()
    summary = "\U0001f389 ✔"
    machine.post("/register", {"pid": machine.bystander().pid, "cwd": "/", "summary": summary})
    ran = machine.run("peers", "--json", PYTHONIOENCODING=name, PYTHONUTF8="0")
    assert json.loads(ran.stdout)[0]["summary"] == summary
    ran = machine.run("peers", PYTHONIOENCODING=name, PYTHONUTF8="0")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert r"Summary: \U0001f389 \u2714" in ran.stdout


def refused(code):
    return RefusedError("/x", 200, {"ok": False, "error": "no", "code": code})


CODES = [
    (errors.ClaudePeersError("a", "b"), 1),
    (errors.StoreError("a", "b"), 1),
    (refused("text_too_long"), 1),
    (refused("not_your_peer"), 1),
    (refused("a code of next year"), 1),
    (errors.SettingsError("X", "y", "z"), 2),
    (output.UsageError("a", "b"), 2),
    (refused("peer_not_found"), 4),
    (errors.PeerNotFoundError("x"), 4),
    (errors.AmbiguousPeerError("x", ("a", "b")), 4),
    (errors.DedupeConflictError("k"), 5),
    (refused("dedupe_conflict"), 5),
    (errors.NameTakenError("x"), 5),
    (errors.MessageNotFoundError(7), 4),
    (errors.BadRequestError("a"), 2),
    (errors.LoopGuardError(12, 1.0), 7),
    (errors.HopLimitError(20), 7),
    (NoBrokerError("a", "b"), 6),
    (errors.MailboxFullError("x", 9), 7),
    (errors.RateLimitedError(120, 1.0), 7),
    (refused("mailbox_full"), 7),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_an_error_has_the_exit_code_of_its_kind(error, code):
    assert output.exit_code(error) == code


def test_every_code_is_one_of_an_error_that_exists():
    def kinds(kind: type[ClaudePeersError]) -> set[str]:
        return {kind.code}.union(*(kinds(each) for each in kind.__subclasses__()))

    for each in COMMANDS:  # some declare one
        main._module(each)
    for package in (core, client, wire, broker):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

    assert {*output._CODES} <= kinds(ClaudePeersError)


def exit_codes():
    text = README.read_text(encoding="utf-8").partition("| exit code |")[2].partition("\n\n")[0]
    return {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


@pytest.fixture
def ways(cli, machine, monkeypatch):
    """Return a way to each exit code, through the command line."""

    def conflict():
        machine.serve()
        monkeypatch.setattr("os.urandom", lambda count: b"k" * count)
        session = machine.session(CLAUDE_PEERS_NAME="alpha")
        session.list_prompts()
        machine.peer_id(session)
        cli("send", "alpha", "one")
        return cli("send", "alpha", "another")

    def served(*words):
        machine.serve()
        return cli(*words)

    def register():
        body = {"pid": machine.bystander().pid, "cwd": "/x", "name": "alpha"}
        machine.post("/register", body)

    def too_long():
        machine.serve()
        register()
        return cli("send", "alpha", "x" * 300_000)

    def full():
        machine.serve(CLAUDE_PEERS_MAILBOX_LIMIT="1")
        register()
        assert cli("send", "alpha", "one").code == 0
        return cli("send", "alpha", "two")

    return {
        0: lambda: served("status"),
        1: too_long,
        2: lambda: cli("frobnicate"),
        3: lambda: served("listen", "--timeout", "0"),
        4: lambda: served("send", "nobody", "hi"),
        5: conflict,
        6: lambda: cli("status"),
        7: full,
    }


@pytest.mark.parametrize("code", sorted(exit_codes()))
def test_each_exit_code_of_the_readme_is_one_that_a_command_ends_with(ways, code):
    assert {*ways} == exit_codes()
    ran = ways[code]()
    assert ran.code == code
    assert bool(ran.err) == bool(code)
