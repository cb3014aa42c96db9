"""A database file that goes away while a broker has it open: nothing that it held is lost."""

import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from support.brokers import LEADER, NO_LIMITS, draft

from claude_peers.core.errors import FencedError, StoreError
from claude_peers.core.models import PeerId
from claude_peers.stores.sqlite.store import SqliteStore

BOB = PeerId("bob")
SIDECARS = ("", "-wal", "-shm")

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "peers.db"


@pytest.fixture
async def store(path):
    path.parent.mkdir()
    async with SqliteStore(str(path)) as opened:
        await opened.take_office(LEADER, now=0.0)
        opened.told = []
        opened.commits.fenced = opened.told.append
        await accept(opened, "before")
        yield opened


async def accept(store, text: str) -> None:
    await store.accept(draft(text), NO_LIMITS, now=0.0)


async def texts(path) -> list[str]:
    async with SqliteStore(str(path)) as store:
        assert (await store.ledger()).balanced
        return [message.text for message in await store.unread(BOB)]


@pytest.mark.parametrize("gone", [SIDECARS, SIDECARS[:1]], ids=["with its log", "alone"])
@pytest.mark.fault("F49")
async def test_a_deleted_database_is_made_again(store, path, gone):
    for suffix in gone:
        os.unlink(f"{path}{suffix}")
    with pytest.raises(FencedError):
        await accept(store, "refused")
    assert await store.commits.__aexit__(None, None, None) is None
    assert await texts(path) == ["before"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["peers.db"]
    assert store.told == [f"{path} was deleted while in use; it was made again, whole"]


async def test_a_database_that_was_replaced_is_left_alone(store, path, tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE notes (text TEXT)")
    before = (tmp_path / "other.db").read_bytes()
    os.replace(tmp_path / "other.db", path)
    with pytest.raises(FencedError):
        await accept(store, "refused")
    assert path.read_bytes() == before
    (saved,) = path.parent.glob("peers.db.saved-*")
    assert await texts(saved) == ["before"]
    assert store.told == [f"{path} was replaced while in use; what it held is in {saved}"]


async def test_where_it_cannot_be_saved_nothing_is_accepted_until_it_can(store, path):
    shutil.rmtree(path.parent)
    for _ in range(2):
        with pytest.raises(StoreError, match="moved or deleted") as refused:
            await accept(store, "refused")
        assert "Make its folder again" in refused.value.remedy
    assert store.told == []
    path.parent.mkdir()
    with pytest.raises(FencedError):
        await accept(store, "refused")
    assert await texts(path) == ["before"]


async def test_a_disk_that_fails_ends_the_office(store):
    def fails(_db):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR | (4 << 8)
        raise error

    with pytest.raises(StoreError, match="disk I/O error"):
        await store.commits.submit(fails)
    await accept(store, "goes on meanwhile")
    assert store.told == ["the disk failed: disk I/O error"]
