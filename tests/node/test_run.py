"""How a process begins: its log, and settings that cannot be used."""

import logging
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import Machine, command
from support.waiting import eventually

from claude_peers.core.errors import SettingsError
from claude_peers.host import paths
from claude_peers.node import run
from claude_peers.settings import Settings

SECRETS = ("the text of a message", "another text")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Return the product's logger; what a test adds to it is taken away."""
    logger = logging.getLogger("claude_peers")
    before, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield logger
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def log(environ: dict[str, str]) -> Path:
    return Path(paths.log_folder(environ)) / "claude-peers.log"


def lines_of(machine: Machine) -> str:
    log = Path(paths.log_folder(machine.environment())) / "claude-peers.log"
    return log.read_text()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_log_is_the_users_alone(root, environ, log, umask):
    before = os.umask(umask)
    try:
        run.start_logging(Settings(environ=environ), verbose=False)
        root.info("hello")
    finally:
        os.umask(before)

    assert "hello" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_details_are_logged_only_on_request(root, environ, log, capsys):
    run.start_logging(Settings(environ=environ), verbose=False)
    root.debug("a detail")
    root.info("a fact")

    assert "a fact" in log.read_text()
    assert "a detail" not in log.read_text()
    assert capsys.readouterr() == ("", "")


def test_verbose_logs_details_to_stderr_as_well(root, environ, log, capsys):
    run.start_logging(Settings(environ=environ), verbose=True)
    root.debug("a detail")

    assert "a detail" in log.read_text()
    told = capsys.readouterr()
    assert "a detail" in told.err
    assert told.out == ""


def test_a_long_log_is_put_aside(root, environ, log):
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * (run.LOG_SIZE + 1))

    run.start_logging(Settings(environ=environ), verbose=False)
    root.info("a fact")

    assert log.with_name("claude-peers.log.1").stat().st_size == run.LOG_SIZE + 1
    assert log.read_text().count("\n") == 1


def test_a_folder_that_cannot_be_written_costs_only_the_log(root, environ, tmp_path):
    (tmp_path / "state").write_text("in the way")

    run.start_logging(Settings(environ=environ), verbose=False)

    root.info("nobody hears this")


def test_a_user_without_a_home_has_no_log(root, environ, monkeypatch):
    def refuse(_environ: object) -> str:
        raise SettingsError("HOME", "", "Set it to your home directory.")

    monkeypatch.setattr(paths, "log_folder", refuse)

    run.start_logging(Settings(environ=environ), verbose=False)

    root.info("nobody hears this")


# Processes


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.threat("T29")
def test_no_log_ever_holds_the_text_of_a_message(machine: Machine):
    first = machine.session("--verbose")
    first.list_prompts()
    first_id = machine.peer_id(first)
    second = machine.session("--verbose")
    second.call("send_message", to_id=first_id, message=SECRETS[0])
    first.wait_for_push(SECRETS[0])
    first.call("send_message", to_id="nobody", message=SECRETS[1])
    first.call("check_messages")
    first.kill()
    machine.wait_for_broker(other_than=first.pid)
    second.call("send_message", to_id=first_id, message=SECRETS[1])

    told = lines_of(machine) + first.stderr + second.stderr

    assert "leading in epoch 2" in told
    assert not [text for text in SECRETS if text in told]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLAUDE_PEERS_PORT", "many"),
        ("CLAUDE_PEERS_BIND", "not an address"),
        ("CLAUDE_PEERS_BROKER_URL", "ftp://elsewhere.example"),
        ("CLAUDE_PEERS_NAME", "Not A Name"),
        ("CLAUDE_PEERS_PUSH", "yes"),
    ],
)
def test_a_bad_setting_is_explained_in_every_tool_result(machine: Machine, name, value):
    session = machine.session(**{name: value})

    assert len(session.list_tools()) >= 4
    for tool, given in (
        ("list_peers", {}),
        ("check_messages", {}),
        ("set_summary", {"summary": "x"}),
        ("send_message", {"to_id": "x", "message": "x"}),
    ):
        text, failed = session.call(tool, **given)
        assert failed
        assert name in text and value in text
    assert name in session.stderr
    assert not machine.database.exists()
    assert session.close(5) == 0


def test_a_bad_setting_is_logged_in_the_users_own_home(machine: Machine):
    session = machine.session(CLAUDE_PEERS_PORT="many")
    assert session.call("list_peers")[1]

    assert Path(paths.log_folder(machine.environment())).is_dir()


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_without_an_agent_tells_its_role_and_ends_at_a_signal(machine: Machine, number):
    first, second = machine.serve(), machine.start("serve")
    logs = [machine.root / "process0.log", machine.root / "process1.log"]
    eventually(lambda: "follower" in logs[1].read_text(), what="a follower")

    first.send_signal(number)

    assert first.wait(10) == 0
    assert machine.wait_for_broker(other_than=first.pid) == second.pid
    eventually(lambda: "leader" in logs[1].read_text(), what="a leader")
    assert "stopped" in logs[0].read_text()


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
def test_a_node_needs_no_parent(machine: Machine):
    shell = subprocess.run(
        ["sh", "-c", '"$@" >/dev/null & echo $!', "sh", *command(), "serve"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=machine.environment(),
        check=True,
    )
    pid = int(shell.stdout)
    try:
        assert machine.wait_for_broker() == pid
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not machine.left(), what="the node's end")
