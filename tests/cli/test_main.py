"""Finding the command, running it, and what comes out when something is wrong."""

import os
import subprocess

import pytest
from support.machine import command

from claude_peers import __version__
from claude_peers.cli import main
from claude_peers.cli.commands import COMMANDS, status

NAMES = [each.name for each in COMMANDS]


@pytest.mark.parametrize("words", [(), ("help",), ("-h",), ("--help",), ("cli",), ("cli", "help")])
def test_the_overview_names_every_command_with_what_it_does(cli, words):
    ran = cli(*words)
    assert ran.code == 0
    assert ran.err == ""
    places = [ran.out.index(f"  {each.usage}") for each in COMMANDS]
    assert places == sorted(places)
    assert all(each.summary in ran.out for each in COMMANDS)
    assert "claude mcp add" in ran.out


@pytest.mark.parametrize("words", [("--version",), ("cli", "--version")])
def test_the_version_is_one_line(cli, words):
    ran = cli(*words)
    assert (ran.code, ran.out) == (0, f"claude-peers {__version__}\n")


@pytest.mark.parametrize(
    ("word", "meant"), [("stauts", "status"), ("killbroker", "kill-broker"), ("peer", "peers")]
)
def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(cli, word, meant):
    for words in ((word,), ("cli", word, "x")):
        ran = cli(*words)
        assert ran.code == 2
        assert ran.out == ""
        assert f"There is no command '{word}'" in ran.err
        assert f"Did you mean `claude-peers {meant}`?" in ran.err


def test_a_word_like_no_command_is_answered_with_where_they_are_listed(cli):
    ran = cli("frobnicate")
    assert (ran.code, ran.out) == (2, "")
    assert "`claude-peers help` lists them" in ran.err


@pytest.mark.parametrize("name", NAMES)
def test_each_command_explains_itself(cli, name):
    ran = cli(name, "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"usage: claude-peers {name}")
    assert main._module(next(each for each in COMMANDS if each.name == name)).__doc__ in ran.out
    assert "--json" in ran.out


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_is_a_usage_error_that_shows_the_usage(cli, name):
    ran = cli(name, "--frobnicate")
    assert (ran.code, ran.out) == (2, "")
    assert f"usage: claude-peers {name}" in ran.err


def test_a_usage_error_is_json_where_that_is_wanted(cli):
    for words in (("status", "--json", "--frob"), ("frob", "--json"), ("send", "--json")):
        ran = cli(*words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.error["code"] == "usage"
        assert ran.error["remedy"]


def test_options_cannot_be_abbreviated(cli):
    assert cli("status", "--js").code == 2


def test_only_a_message_takes_words_after_two_dashes(cli):
    ran = cli("status", "--", "more", "words")
    assert ran.code == 2
    assert "unrecognized arguments: more words" in ran.err


def test_an_interruption_has_the_usual_exit_code(cli, monkeypatch):
    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "run", interrupted)
    assert cli("status").code == 130


@pytest.mark.parametrize(
    "words", [["help"], ["--version"], ["send", "--help"], ["status"], ["peers", "--json"]]
)
def test_a_reader_that_has_had_enough_ends_the_command_without_a_word(machine, words):
    machine.serve()
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [*command(), *words],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=machine.environment(),
            cwd=machine.work,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert ran.stderr == b""
    # argparse itself may have noticed and said nothing.
    assert ran.returncode == 1 or "--help" in words


def test_the_command_line_loads_neither_the_sdk_nor_the_event_loop(machine):
    machine.serve()
    code = (
        "import sys; from claude_peers.cli.main import run; run(['status']);"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [command()[0], "-c", code],
        env=machine.environment(COVERAGE_PROCESS_START=None, COVERAGE_PROCESS_CONFIG=None),
        cwd=os.getcwd(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = {*ran.stderr.split()}
    assert "claude_peers.cli.commands.status" in loaded
    assert not {"mcp", "psutil", "asyncio", "sqlite3", "filelock"} & loaded
