"""A damaged database: what can be read is kept, what is damaged is kept too."""

import os
import sqlite3
from contextlib import closing

import pytest
from support.brokers import LEADER, NO_LIMITS, draft

from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import Event
from claude_peers.core.models import Peer, PeerId, Process, State, Trust
from claude_peers.stores.sqlite.examine import examine
from claude_peers.stores.sqlite.salvage import SKIPPED_IDS, salvage
from claude_peers.stores.sqlite.store import SqliteStore

BOB = PeerId("bob")
MESSAGES = 200
PAGE = 4096

pytestmark = pytest.mark.anyio


@pytest.fixture
async def path(tmp_path):
    """A database with a peer and 200 messages, of which ten are read and one is leased."""
    path = tmp_path / "peers.db"
    async with SqliteStore(str(path)) as store:
        await store.take_office(LEADER, now=0.0)
        await store.save_peer(
            Peer(id=BOB, name="bob", process=Process(pid=7, started="1"), trust=Trust.TOKEN)
        )
        for number in range(MESSAGES):
            await store.accept(draft(f"{number} " + "x" * 900), NO_LIMITS, now=0.0)
        await store.move(BOB, range(1, 11), Event.SEE, now=0.0)
        await store.hand_out(BOB, Claim(limit=1), now=0.0)
    return path


def pages_of(path, table: str) -> list[int]:
    """Return where each leaf page of a table begins."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = 1")
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", [table]
        ).fetchone()
    data = path.read_bytes()
    kind, start = data[(root - 1) * PAGE], (root - 1) * PAGE
    if kind == 13:
        return [start]
    cells = int.from_bytes(data[start + 3 : start + 5], "big")
    offsets = [
        int.from_bytes(data[start + 12 + 2 * n : start + 14 + 2 * n], "big") for n in range(cells)
    ]
    children = [int.from_bytes(data[start + o : start + o + 4], "big") for o in offsets]
    children.append(int.from_bytes(data[start + 8 : start + 12], "big"))
    return [(child - 1) * PAGE for child in children]


def scribble(path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * PAGE)


def content(path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def salvaged(path):
    return salvage(str(path), now=2e9, keep=True)


async def texts(store) -> list[str]:
    return [message.text.split()[0] for message in await store.unread(BOB)]


async def check(path) -> list[str]:
    """Return the unread texts that a broker finds, after it has accepted one more."""
    assert not examine(str(path)).remedy
    async with SqliteStore(str(path)) as store:
        await store.take_office(LEADER, now=0.0)
        assert (await store.ledger()).balanced
        kept = await texts(store)
        box = await store.mailbox(BOB)
        assert box.unread == len(kept)
        await store.accept(draft("new"), NO_LIMITS, now=0.0)
        assert (await texts(store))[-1] == "new"
        assert (await store.ledger()).balanced
        return kept


async def test_of_a_damaged_page_of_mail_only_its_messages_are_lost(path):
    leaves = pages_of(path, "mail")
    scribble(path, leaves[len(leaves) // 2])
    damaged = path.read_bytes()
    found = salvaged(path)
    assert MESSAGES - 8 <= found.messages < MESSAGES
    assert (found.peers, found.unread) == (1, found.messages - 10)
    assert content(found.aside) == damaged
    kept = await check(path)
    assert kept == sorted(kept, key=int)
    assert len(kept) == found.unread
    assert (kept[0], kept[-1]) == ("10", "199")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(path.parent.glob(".salvage-*"))


async def test_a_dry_run_changes_nothing(path):
    scribble(path, pages_of(path, "mail")[3])
    before = path.read_bytes()
    found = salvage(str(path), now=2e9, keep=False)
    assert (found.aside, found.peers) == ("", 1)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["peers.db"]


async def test_a_damaged_root_loses_that_table_alone(path):
    scribble(path, pages_of(path, "peer")[0])
    found = salvaged(path)
    assert (found.peers, found.messages) == (0, MESSAGES)
    assert len(await check(path)) == MESSAGES - 10


async def test_of_garbage_nothing_is_kept_and_epochs_still_grow(path):
    path.write_bytes(b"no database at all" * 999)
    found = salvaged(path)
    assert (found.peers, found.messages) == (0, 0)
    async with SqliteStore(str(path)) as store:
        assert await store.take_office(LEADER, now=0.0) == 2_000_000_001
        receipt = await store.accept(draft("first"), NO_LIMITS, now=0.0)
        assert receipt.message.id == SKIPPED_IDS + 1


async def test_a_truncated_file_gives_what_is_left(path):
    os.truncate(path, path.stat().st_size // 2)
    found = salvaged(path)
    assert 0 < found.messages < MESSAGES
    await check(path)


async def test_what_is_in_the_log_alone_is_kept(path):
    scribble(path, pages_of(path, "mail")[3])
    before = salvage(str(path), now=2e9, keep=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE peer SET summary = 'in the log'")
        log = content(f"{path}-wal")
        found = salvaged(path)
        assert content(f"{found.aside}-wal") == log != b""
    assert found.messages == before.messages
    async with SqliteStore(str(path)) as store:
        (bob,) = await store.peers()
        assert bob.summary == "in the log"


async def test_rows_that_make_no_sense_are_left_out(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE mail SET state = 'nonsense' WHERE id = 20")
        db.execute("UPDATE mail SET steps = 'nonsense' WHERE id = 21")
        db.execute("UPDATE peer SET keys = 'nonsense'")
        db.execute("UPDATE mail SET unread = 1 WHERE id = 1")
        db.execute("PRAGMA writable_schema = 1")
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'text TEXT NOT NULL', 'text TEXT')")
        db.commit()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE mail SET text = NULL WHERE id = 22")
        db.commit()
    found = salvaged(path)
    assert (found.peers, found.messages, found.unread) == (0, MESSAGES - 2, MESSAGES - 12)
    kept = await check(path)
    assert "19" not in kept and "21" not in kept and "20" in kept
    async with SqliteStore(str(path)) as store:
        (story,) = await store.stories([21])
        assert story is not None and story.steps == ()
        assert story.message.state is State.QUEUED


async def test_a_table_of_another_kind_gives_nothing(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE dedupe")
        db.execute("CREATE TABLE dedupe (recipe TEXT)")
        db.commit()
    assert salvaged(path).messages == MESSAGES
