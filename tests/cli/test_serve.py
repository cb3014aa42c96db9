"""A node without an agent, as the command line starts it."""

import contextlib
import json
import os
import sqlite3
import subprocess

import pytest
from support.machine import command
from support.waiting import eventually

from claude_peers.cli.commands import serve
from claude_peers.core.errors import StoreError
from claude_peers.node import run


def log_of(machine, number=0):
    return (machine.root / f"process{number}.log").read_text()


def test_it_leads_says_where_and_ends_at_a_signal(machine):
    node = machine.serve()
    where = f"on http://127.0.0.1:{machine.port}"
    eventually(lambda: f"claude-peers: leader {where}" in log_of(machine))
    node.terminate()
    assert node.wait(20) == 0
    assert log_of(machine).endswith(f"claude-peers: stopped {where}\n")


def test_a_second_node_stands_by_and_takes_over(machine):
    first = machine.serve()
    second = machine.start("serve")
    eventually(lambda: "claude-peers: follower" in log_of(machine, 1))
    first.kill()
    first.wait(10)
    assert machine.wait_for_broker(other_than=first.pid) == second.pid
    eventually(lambda: "claude-peers: leader" in log_of(machine, 1))


def test_json_is_a_value_a_role(machine):
    node = machine.serve("--json")
    node.terminate()
    node.wait(20)
    told = [json.loads(line) for line in log_of(machine).splitlines()]
    assert told == [{"role": role, "port": machine.port} for role in ("leader", "stopped")]


def test_verbose_tells_details_on_stderr(machine):
    machine.serve("--verbose")
    eventually(lambda: "leading in epoch 1" in log_of(machine))


def test_a_setting_that_cannot_be_used_ends_it_at_once(machine):
    ran = machine.run("serve", CLAUDE_PEERS_PORT="0")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "CLAUDE_PEERS_PORT='0'" in ran.stderr


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_node_stays_when_whoever_reads_its_roles_leaves(machine, words):
    reading, writing = os.pipe()
    os.close(reading)
    node = subprocess.Popen(
        [*command(), "serve", *words],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
        env=machine.environment(),
        cwd=machine.work,
    )
    os.close(writing)
    machine.processes.append(node)
    assert machine.wait_for_broker() == node.pid
    assert machine.cli("kill-broker").returncode == 0
    assert machine.wait_for_broker() == node.pid


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_each_role_is_told(cli, machine, monkeypatch, words):
    told = []

    def node(chosen, ready, _cannot):
        told.append(chosen.port)
        ready("leader")

    monkeypatch.setattr(run, "node", node)
    monkeypatch.setattr(run, "start_logging", lambda _chosen, *, verbose: told.append(verbose))
    ran = cli("serve", *words)
    assert ran.code == 0
    assert told == [False, machine.port]
    if words:
        assert (ran.value, ran.err) == ({"role": "leader", "port": machine.port}, "")
    else:
        assert ran.out == ""
        assert ran.err == f"claude-peers: leader on http://127.0.0.1:{machine.port}\n"


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_in_the_way_is_told_on_stderr(cli, monkeypatch, words):
    error = StoreError("The database is locked", "Close the other program.")
    monkeypatch.setattr(run, "node", lambda _chosen, _ready, cannot: cannot(error))
    monkeypatch.setattr(run, "start_logging", lambda _chosen, *, verbose: None)
    ran = cli("serve", *words)
    assert ran.out == ""
    if words:
        assert (ran.error["code"], ran.error["message"]) == ("store_failed", error.fact)
    else:
        assert ran.err == "Failed: The database is locked\nClose the other program.\n"


def test_a_database_that_another_program_has_locked_is_waited_for(machine):
    machine.database.touch(0o600)
    with contextlib.closing(sqlite3.connect(machine.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        node = machine.start("serve")
        eventually(lambda: "database is locked\n" in log_of(machine), timeout=30)
        assert node.poll() is None
        other.execute("ROLLBACK")
    eventually(lambda: "claude-peers: leader" in log_of(machine), timeout=30)


def test_a_variable_that_nothing_reads_is_named_with_the_one_that_was_meant(machine):
    machine.serve(CLAUDE_PEERS_PRT="7000")
    assert log_of(machine).startswith(
        "Nothing reads CLAUDE_PEERS_PRT; did you mean CLAUDE_PEERS_PORT?\n"
    )


def test_the_command_takes_its_place_in_the_module_of_its_name():
    assert serve.__doc__.startswith("Run a node without an agent")
