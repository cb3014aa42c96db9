"""What the product leaves on the disk is the user's alone, and what is purged is gone."""

import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from support.brokers import LEADER, NO_LIMITS, draft
from support.machine import Machine

from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import Event
from claude_peers.core.models import PeerId
from claude_peers.stores.retention import KEEP_READ
from claude_peers.stores.sqlite.store import SqliteStore

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no permission bits")
CANARY = "canary-77ab"
BOB = PeerId("bob")


def found_in(folder: Path) -> list[str]:
    """Return the files that hold the canary."""
    files = (each for each in folder.rglob("*") if each.is_file())
    return [each.name for each in files if CANARY.encode() in each.read_bytes()]


@pytest.mark.anyio
@pytest.mark.threat("T12")
@pytest.mark.parametrize("size", [20, 3000, 200_000])
async def test_what_was_purged_can_no_longer_be_found_in_the_file(tmp_path, size):
    text = (CANARY * size)[:size]
    async with SqliteStore(str(tmp_path / "mail.db")) as store:
        await store.take_office(LEADER, now=0.0)
        for sent in (text, "stays"):
            await store.accept(draft(sent, expires_at=9e9), NO_LIMITS, now=0.0)
        first, _ = await store.hand_out(BOB, Claim(), now=0.0)
        await store.move(BOB, [first.id], Event.SEE, now=0.0, via="check_messages")
        assert found_in(tmp_path)
        while await store.tidy(now=KEEP_READ + 1, most=500):
            pass
        ledger = await store.ledger()
    assert (ledger.purged, ledger.accepted) == (1, 2)
    assert found_in(tmp_path) == []


@pytest.mark.threat("T12")
def test_sqlite_by_itself_leaves_deleted_texts_in_the_file(tmp_path):
    db = sqlite3.connect(tmp_path / "naive.db")
    db.execute("PRAGMA secure_delete = OFF")
    db.execute("CREATE TABLE mail (text)")
    db.execute("INSERT INTO mail VALUES (?)", (CANARY * 100,))
    db.commit()
    db.execute("DELETE FROM mail")
    db.commit()
    db.close()
    assert found_in(tmp_path) == ["naive.db"]


@POSIX
@pytest.mark.threat("T33")
@pytest.mark.parametrize("place", [".claude-peers.db", ".claude-peers.db-wal", ".claude-peers.d"])
def test_a_planted_link_is_refused_and_what_it_leads_to_is_untouched(machine: Machine, place):
    target = machine.root / "precious"
    if place.endswith(".d"):
        target.mkdir(mode=0o755)
    else:
        target.write_bytes(b"precious")
        target.chmod(0o644)
    before = target.stat()
    (machine.home / place).symlink_to(target)
    session = machine.session()

    text, failed = session.call("list_peers")

    assert failed
    assert "is a symbolic link" in text and "Remove the link" in text
    after = target.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert target.is_dir() or target.read_bytes() == b"precious"
    assert (machine.home / place).is_symlink()


@POSIX
@pytest.mark.threat("T33")
def test_a_file_that_is_simply_opened_is_what_the_link_leads_to(tmp_path):
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (tmp_path / "peers.db").symlink_to(target)
    with open(tmp_path / "peers.db", "wb") as simply:
        simply.write(b"ours now")
    assert target.read_bytes() == b"ours now"


@POSIX
@pytest.mark.threat("T29", "T33")
def test_a_planted_link_in_the_place_of_the_log_costs_the_log_alone(machine: Machine):
    target = machine.root / "precious"
    target.write_bytes(b"precious")
    folder = machine.home / "state" / "claude-peers" / "log"
    folder.mkdir(parents=True)
    (folder / "claude-peers.log").symlink_to(target)
    machine.serve()
    assert machine.peers() == []
    assert target.read_bytes() == b"precious"


@POSIX
@pytest.mark.threat("T12")
def test_a_log_that_others_could_read_becomes_private(machine: Machine):
    folder = machine.home / "state" / "claude-peers" / "log"
    folder.mkdir(parents=True)
    log = folder / "claude-peers.log"
    log.write_text("before\n")
    log.chmod(0o644)
    machine.serve()
    assert log.read_text().startswith("before\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
