"""`salvage`: a damaged database is replaced by what can be read of it, and kept."""

import sqlite3
from contextlib import closing

import pytest
from faults import accidents
from support.waiting import eventually

from claude_peers.stores.sqlite import salvage as salvaging


@pytest.fixture
def damaged(machine):
    accidents.ours(machine.database)
    with closing(sqlite3.connect(machine.database)) as db:
        db.execute(
            "INSERT INTO peer (id, name, boot, host, cwd, summary, client, route, trust, "
            "presence, keys, registered_at, last_seen) VALUES "
            "('bob', 'bob', '', '', '/', '', '', '', 'token', 'present', '[]', '', '')"
        )
        db.commit()
        pages = [
            row[0] for row in db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tally'")
        ]
    with machine.database.open("r+b") as file:
        file.seek((pages[0] - 1) * 4096)
        file.write(b"\xff" * 4096)
    return machine.database


def test_what_can_be_read_is_kept_and_the_rest_moved_aside(cli, machine, damaged):
    before = damaged.read_bytes()
    ran = cli("salvage")
    assert (ran.code, ran.err) == (0, "")
    assert "0 message(s), 0 of them unread, and 1 peer(s) were kept." in ran.out
    (aside,) = damaged.parent.glob("*.damaged-*")
    assert f"The damaged file is {aside}, unchanged." in ran.out
    assert aside.read_bytes() == before
    assert cli("doctor", "--json").value["ok"]
    machine.serve()
    assert machine.post("/ledger")["balanced"]


def test_a_dry_run_tells_and_changes_nothing(cli, machine, damaged):
    before = damaged.read_bytes()
    ran = cli("salvage", "--dry-run")
    assert "1 peer(s) could be read." in ran.out
    assert "damaged file is" not in ran.out
    assert damaged.read_bytes() == before
    ran = cli("salvage", "--dry-run", "--json")
    assert (ran.value["aside"], ran.value["peers"]) == ("", 1)


def test_a_whole_database_is_left_alone(cli, machine):
    accidents.ours(machine.database)
    before = machine.database.read_bytes()
    assert "nothing to salvage" in cli("salvage").out
    assert cli("salvage", "--json").value["ok"]
    assert machine.database.read_bytes() == before


@pytest.mark.parametrize("accident", [accidents.foreign, accidents.newer])
def test_what_is_not_damaged_but_not_ours_is_left_alone(cli, machine, accident):
    accident(machine.database)
    before = machine.database.read_bytes()
    ran = cli("salvage")
    assert ran.code == 1
    assert "CLAUDE_PEERS_DB" in ran.err or "Upgrade" in ran.err
    assert machine.database.read_bytes() == before


def test_while_a_broker_uses_it_nothing_is_done(cli, machine):
    machine.serve()
    ran = cli("salvage", "--json")
    assert (ran.code, ran.error["code"]) == (1, "store_failed")
    assert "A broker is using" in ran.error["message"]


def test_without_room_it_says_so(cli, machine, damaged, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(salvaging.shutil, "copyfile", full)
    ran = cli("salvage")
    assert ran.code == 1
    assert "No space left" in ran.err and "Make room" in ran.err
    assert not list(damaged.parent.glob(".salvage-*"))


def test_a_session_that_waits_works_once_it_is_salvaged(cli, machine):
    accidents.garbage(machine.database)
    session = machine.session()
    told, failed = session.call("list_peers")
    assert failed and "claude-peers salvage" in told
    eventually(lambda: cli("salvage").code == 0, what="the lock")
    eventually(lambda: not session.call("whoami")[1], what="a broker")


def test_a_damage_that_a_broker_meets_is_salvaged_while_nobody_leads(cli, machine, damaged):
    machine.serve()
    ran = cli("doctor", "--json")
    assert ran.code == 1 and "claude-peers salvage" in ran.out
    assert cli("kill-broker", "--for", "60s").code == 0
    eventually(lambda: cli("salvage").code == 0, what="the lock")
    assert cli("doctor", "--json").value["checks"][1]["ok"]
