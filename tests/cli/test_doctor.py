"""What `doctor` finds: it names each accident, its remedy, and changes nothing."""

import shutil
import signal
import socket
import sys

import pytest
from faults import accidents

from claude_peers.cli.commands import doctor
from claude_peers.stores.sqlite.examine import examine


def checks(ran) -> dict:
    return {each["name"]: each for each in ran.value["checks"]}


def test_on_a_fresh_machine_all_is_well(cli, machine):
    ran = cli("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("ok  ") == len(doctor.TRIALS)
    assert "does not exist yet" in ran.out
    assert "claude-peers serve" in ran.out
    assert not machine.database.exists()


def test_with_a_broker_it_makes_it_prove_itself(cli, machine):
    node = machine.serve()
    found = checks(cli("doctor", "--json"))
    assert all(each["ok"] for each in found.values())
    assert f"pid {node.pid} leads in epoch 1" in found["broker"]["fact"]
    assert "is whole, with 0 unread message(s)" in found["database"]["fact"]


def test_an_upstream_broker_is_told_as_one(cli, upstream):
    found = checks(cli("doctor", "--json"))
    assert found["broker"]["ok"]
    assert "another implementation" in found["broker"]["fact"]


WORDS = {
    accidents.garbage: "not a database",
    accidents.truncated: "",  # in words that depend on what is missing
    accidents.scribbled_over: "",
    accidents.foreign: "another program's",
    accidents.newer: "schema 99, this version knows",
}


@pytest.mark.parametrize("accident", WORDS, ids=lambda each: each.__name__)
def test_it_recognises_an_accident_and_changes_nothing(cli, machine, accident):
    accident(machine.database)
    before = machine.database.read_bytes()
    ran = cli("doctor", "--json")
    found = checks(ran)["database"]
    assert (ran.code, found["ok"]) == (1, False)
    assert WORDS[accident] in found["fact"]
    assert found["remedy"]
    assert machine.database.read_bytes() == before


def test_it_recognises_a_database_that_another_program_holds(cli, machine):
    accidents.ours(machine.database)
    with accidents.locked(machine.database):
        ran = cli("doctor", "--json")
    assert ran.code == 1
    assert "locked" in checks(ran)["database"]["fact"]
    assert "close it" in checks(ran)["database"]["remedy"]


def test_for_people_each_failure_is_followed_by_its_remedy(cli, machine):
    machine.database.mkdir()
    ran = cli("doctor")
    assert ran.code == 1
    lines = ran.out.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith("FAIL database"))
    assert "is no file" in lines[place]
    assert "CLAUDE_PEERS_DB" in lines[place + 1]


def test_a_folder_that_is_none_is_told(cli, machine):
    machine.database.with_suffix(".d").write_text("a file")
    found = checks(cli("doctor", "--json"))
    assert not found["folder"]["ok"]


def test_a_stranger_on_the_port_is_told(cli, machine):
    with socket.create_server(("127.0.0.1", machine.port)) as server:
        server.settimeout(10)
        found = checks(cli("doctor", "--json"))
    assert not found["broker"]["ok"]
    assert found["broker"]["remedy"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_stopped_broker_is_told_as_one(cli, machine):
    node = machine.serve()
    node.send_signal(signal.SIGSTOP)
    try:
        found = checks(cli("doctor", "--json"))["broker"]
    finally:
        node.send_signal(signal.SIGCONT)
    assert found["fact"].endswith(f"is stopped (pid {node.pid})")
    assert f"kill -CONT {node.pid}" in found["remedy"]


def test_a_full_disk_is_told(cli, machine, monkeypatch):
    used = shutil.disk_usage(machine.home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: used._replace(free=doctor.ROOM - 1))
    found = checks(cli("doctor", "--json"))
    assert not found["disk"]["ok"]
    assert "Free some space" in found["disk"]["remedy"]


def test_a_broker_that_misses_messages_is_told(cli, machine, monkeypatch):
    machine.serve()
    monkeypatch.setattr(doctor.Broker, "ask", lambda *_: {"balanced": False})
    found = checks(cli("doctor", "--json"))
    assert (found["broker"]["ok"], found["broker"]["fact"]) == (False, "messages are missing")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE TABLE peers (id TEXT)", "is an upstream database, to be adopted"),
        ("SELECT 1", "is empty"),
    ],
)
def test_a_database_that_a_broker_will_take_is_in_order(tmp_path, statement, told):
    import sqlite3

    path = tmp_path / "m.db"
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
    path.touch()
    condition = examine(str(path))
    assert condition.fact.endswith(told)
    assert condition.remedy == ""
