"""A database that cannot be had is told: which, why, and the way out."""

import os
from pathlib import Path

import pytest
from support.machine import Machine, free_port
from support.waiting import eventually

from claude_peers.core.errors import StoreError
from claude_peers.node import place
from claude_peers.settings import Settings

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


def make_folder(path: Path) -> None:
    path.mkdir()


def make_text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 500)


def make_obstacle(path: Path) -> None:
    path.parent.write_text("in the way")


UNUSABLE = {
    "a folder": ("there/x.db", make_folder, "x.db is a folder, where a file belongs"),
    "a text": ("there/x.db", make_text, "file is not a database"),
    "below a file": ("there/file/x.db", make_obstacle, "Not a directory"),
}


@pytest.fixture(params=UNUSABLE.values(), ids=UNUSABLE)
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return a database that cannot be used, and the reason."""
    name, make, reason = request.param
    path = tmp_path / name
    (tmp_path / "there").mkdir()
    make(path)
    return str(path), reason


def test_a_node_that_can_never_lead_says_why_once_and_ends(machine: Machine, unusable):
    path, reason = unusable

    ran = machine.run("serve", CLAUDE_PEERS_DB=path)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count(f"CLAUDE_PEERS_DB={path!r} does not work: ") == 1
    assert reason in ran.stderr
    assert "CLAUDE_PEERS_DB" in ran.stderr.splitlines()[-1]


def test_an_agent_is_told_at_once_although_the_handshake_goes_well(machine: Machine, unusable):
    path, reason = unusable
    session = machine.session(CLAUDE_PEERS_DB=path)

    text, failed = session.call("list_peers", timeout=8)

    assert failed
    assert f"CLAUDE_PEERS_DB={path!r} does not work: " in text
    assert reason in text


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_folder_that_no_system_can_make_is_told_too(machine: Machine):
    ran = machine.run("serve", CLAUDE_PEERS_DB="/proc/x/y.db")

    assert ran.returncode == 1
    assert "'/proc/x/y.db' does not work: /proc/x/y.d cannot be used: No such file" in ran.stderr


def test_the_path_is_named_where_no_variable_chose_it():
    told = place.explained(
        StoreError("/h/x.d is a file", "Move it away."), Settings(database="/h/x.db")
    )

    assert str(told) == "The database /h/x.db does not work: /h/x.d is a file. Move it away."


@pytest.mark.parametrize(
    ("error", "for_good"),
    [
        (
            StoreError("The database failed: database is locked", "Close it.", retry_after=1.0),
            False,
        ),
        (StoreError("The database failed: disk is full", "Free some.", retry_after=1.0), False),
        (
            StoreError("The database failed: disk image is malformed", "Move.", retry_after=1.0),
            True,
        ),
        (StoreError("/h/x.d belongs to user 7 and not to you", "Remove it."), True),
    ],
    ids=["locked", "full", "damaged", "another's"],
)
def test_what_passes_by_itself_is_told_apart(error, for_good):
    told = place.explained(error, Settings())

    assert isinstance(told, place.UnusableDatabaseError) is for_good
    assert told.retry_after == error.retry_after


# Another port


def other_port(machine: Machine) -> tuple[str, str]:
    """Return another port, and what is to be said to whoever wants the database there."""
    node = machine.serve()
    told = f"is in use by the broker on port {machine.port} (pid {node.pid})"
    return str(free_port()), told


def test_a_node_on_another_port_says_where_the_databases_broker_is(machine: Machine):
    port, told = other_port(machine)

    machine.start("serve", CLAUDE_PEERS_PORT=port)

    log = machine.root / "process1.log"
    eventually(lambda: told in log.read_text(), what="the reason")
    assert f"CLAUDE_PEERS_PORT={machine.port}" in log.read_text()


def test_an_agent_on_another_port_is_told_where_the_broker_is(machine: Machine):
    port, told = other_port(machine)

    text, failed = machine.session(CLAUDE_PEERS_PORT=port).call("list_peers", timeout=8)

    assert failed
    assert told in text


def test_a_node_on_another_port_leads_when_the_first_has_ended(machine: Machine):
    port, told = other_port(machine)
    machine.start("serve", CLAUDE_PEERS_PORT=port)
    log = machine.root / "process1.log"
    eventually(lambda: told in log.read_text(), what="the reason")

    machine.processes[0].terminate()

    eventually(lambda: f"leader on http://127.0.0.1:{port}" in log.read_text(), what="the lead")


def test_a_command_on_another_port_is_told_where_the_broker_is(machine: Machine):
    port, told = other_port(machine)

    ran = machine.run("status", CLAUDE_PEERS_PORT=port)

    assert ran.returncode == 6
    assert told in ran.stderr
