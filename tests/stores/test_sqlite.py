"""One connection, one thread, one commit for all that waits; and every way a file can refuse."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
from collections import Counter
from contextlib import AsyncExitStack

import anyio
import pytest
from support.brokers import LEADER, NO_LIMITS, draft

from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import Event
from claude_peers.core.errors import DedupeConflictError, FencedError, StoreError
from claude_peers.core.models import Peer, PeerId, State
from claude_peers.stores.sqlite import commits, schema
from claude_peers.stores.sqlite.commits import MOST, Commits, translate
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")
BOUND = 10


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "mail.db")


@pytest.fixture
async def store(path):
    async with SqliteStore(path) as opened:
        yield opened


class Gate:
    """A piece of work that holds the store's thread until it is opened."""

    def __init__(self, store: SqliteStore) -> None:
        self.entered = asyncio.Event()
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._work = store.commits.submit(self._hold, writes=False)

    def _hold(self, _db) -> None:
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self._open.wait(BOUND)

    async def __aenter__(self):
        with anyio.fail_after(BOUND):
            await self.entered.wait()
        return self

    async def __aexit__(self, *_error) -> None:
        self._open.set()
        await self._work


async def query(store, sql: str):
    return await store.commits.submit(lambda db: db.execute(sql).fetchall(), writes=False)


async def traced(store) -> list[str]:
    """Return the statements that run from now on."""
    statements: list[str] = []
    await store.commits.submit(lambda db: db.set_trace_callback(statements.append), writes=False)
    return statements


async def texts(store) -> list[str]:
    return [message.text for message in await store.unread(BOB)]


def accepting(store, *args, **fields):
    return asyncio.ensure_future(store.accept(draft(*args, **fields), NO_LIMITS, now=0.0))


def raw(path: str, *statements: str) -> list:
    """Run statements on the file from outside."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return [db.execute(statement).fetchall() for statement in statements]


async def refused(path: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        async with SqliteStore(path):
            pass
    return caught.value


# Group commit


async def test_everything_that_waits_shares_one_commit(store):
    statements = await traced(store)
    async with Gate(store):
        waiting = [accepting(store, str(n)) for n in range(200)]
        await asyncio.sleep(0)
        statements.clear()
    receipts = await asyncio.gather(*waiting)
    assert Counter(statements)["COMMIT"] == 2  # the gate's, and that of all the others
    assert [receipt.message.text for receipt in receipts] == [str(n) for n in range(200)]


async def test_a_commit_takes_no_more_than_its_share(store):
    statements = await traced(store)
    async with Gate(store):
        waiting = [accepting(store) for _ in range(MOST + 1)]
        await asyncio.sleep(0)
        statements.clear()
    await asyncio.gather(*waiting)
    assert Counter(statements)["COMMIT"] == 3


async def test_nobody_is_told_before_the_commit(store):
    told: list[tuple[str, bool]] = []
    async with Gate(store):
        watch = store.commits.submit(
            lambda db: db.set_trace_callback(lambda sql: told.append((sql, waiting.done())))
        )
        waiting = accepting(store)
        await asyncio.sleep(0)
    await asyncio.gather(watch, waiting)
    assert told[-1] == ("COMMIT", False)


async def test_reading_alone_begins_no_write(store):
    statements = await traced(store)
    await store.unread(BOB)
    await store.mailbox(BOB)
    assert "BEGIN IMMEDIATE" not in statements


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        (lambda db: db.execute("INSERT INTO mail (id) VALUES (1)"), StoreError),
        (lambda db: db.execute("SELECT ?", ["\ud800"]), UnicodeEncodeError),
        (lambda db: db.execute("SELECT ?", [1 << 80]), OverflowError),
    ],
    ids=["constraint", "text", "number"],
)
async def test_a_piece_that_fails_rolls_back_alone(store, piece, error):
    def half_done(db):
        db.execute("INSERT INTO adopted VALUES ('half', 1)")
        piece(db)

    async with Gate(store):
        before, failing = accepting(store, "before"), store.commits.submit(half_done)
        after = accepting(store, "after")
        await asyncio.sleep(0)
    with pytest.raises(error):
        await failing
    await asyncio.gather(before, after)
    assert sorted(await texts(store)) == ["after", "before"]
    assert await query(store, "SELECT * FROM adopted") == []


async def test_a_refusal_is_its_callers_alone(store):
    await accepting(store, "one", dedupe_key="k")
    async with Gate(store):
        conflict = accepting(store, "two", dedupe_key="k")
        fine = accepting(store, "three")
        await asyncio.sleep(0)
    with pytest.raises(DedupeConflictError):
        await conflict
    assert not (await fine).duplicate


async def test_a_failed_commit_fails_everybody_in_it(path):
    def strict(db):
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("CREATE TABLE child (id REFERENCES peer (id) DEFERRABLE INITIALLY DEFERRED)")

    async with SqliteStore(path, strict) as store:
        async with Gate(store):
            fine = accepting(store)
            orphan = store.commits.submit(lambda db: db.execute("INSERT INTO child VALUES ('x')"))
            await asyncio.sleep(0)
        for failed in (fine, orphan):
            with pytest.raises(StoreError, match="FOREIGN KEY"):
                await failed
        assert await texts(store) == []
        assert (await store.ledger()).accepted == 0
        await accepting(store, "again")
        assert await texts(store) == ["again"]


async def test_a_failing_disk_fails_everybody_in_the_commit(store):
    await accepting(store, "kept")
    ((pages,),) = await query(store, "PRAGMA page_count")
    await query(store, f"PRAGMA max_page_count = {pages}")
    async with Gate(store):
        small, large = accepting(store, "small"), accepting(store, "x" * 100_000)
        await asyncio.sleep(0)
    for failed in (small, large):
        with pytest.raises(StoreError, match="Free some space"):
            await failed
    assert await texts(store) == ["kept"]


async def test_an_epoch_whose_commit_failed_is_not_kept(path):
    def strict(db):
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("CREATE TABLE child (id REFERENCES peer (id) DEFERRABLE INITIALLY DEFERRED)")

    async with SqliteStore(path, strict) as store:
        async with Gate(store):
            office = asyncio.ensure_future(store.take_office(LEADER, now=0.0))
            orphan = store.commits.submit(lambda db: db.execute("INSERT INTO child VALUES ('x')"))
            await asyncio.sleep(0)
        await asyncio.gather(office, orphan, return_exceptions=True)
        assert isinstance(office.exception(), StoreError)
        assert await store.take_office(LEADER, now=0.0) == 1
        await accepting(store)


async def test_a_cancelled_caller_harms_nobody(store):
    async with Gate(store):
        gone, other = accepting(store, "gone"), accepting(store, "other")
        await asyncio.sleep(0)
        gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await other
    assert await texts(store) == ["gone", "other"]


# Opening and closing


async def test_closing_commits_what_waits(path):
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore(path))
        async with Gate(store):
            waiting = [accepting(store, str(n)) for n in range(3)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(stack.pop_all().aclose())
            await asyncio.sleep(0)
        await closing
    assert [task.done() for task in waiting] == [True] * 3
    assert raw(path, "SELECT text FROM mail") == [[("0",), ("1",), ("2",)]]


async def test_a_closed_store_takes_nothing_more(path):
    async with SqliteStore(path) as store:
        pass
    with pytest.raises(FencedError):
        await store.unread(BOB)


async def test_a_store_that_is_opened_again_has_everything(path):
    async with SqliteStore(path) as store:
        await store.save_peer(Peer(id=BOB, name="bob", keys=("k",)))
        epoch = await store.take_office(LEADER, now=0.0)
        numbers = [(await accepting(store, str(n), dedupe_key=str(n))).message.id for n in range(3)]
        await store.move(BOB, numbers[:1], Event.SEE, now=0.0)
        await store.hand_out(BOB, Claim(limit=1), now=0.0)
        mail = [await store.message(number) for number in numbers]
        ledger, peers = await store.ledger(), await store.peers()
    async with SqliteStore(path) as store:
        assert [await store.message(number) for number in numbers] == mail
        assert (await store.ledger(), await store.peers()) == (ledger, peers)
        assert (await accepting(store, "2", dedupe_key="2")).duplicate
        assert (await accepting(store, "new")).message.id > max(numbers)
        assert await store.take_office(LEADER, now=0.0) == epoch + 1
        assert (await store.message(numbers[1])).state is State.QUEUED


async def test_who_gives_up_opening_leaves_no_connection_behind(path):
    entered, opened = threading.Event(), threading.Event()

    def slowly(_db):
        entered.set()
        assert opened.wait(BOUND)

    store = Commits(path, prepare=slowly)
    opening = asyncio.ensure_future(store.__aenter__())
    assert await asyncio.to_thread(entered.wait, BOUND)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    opened.set()
    await asyncio.to_thread(store._thread.join, BOUND)
    assert not store._thread.is_alive()


def test_a_loop_that_has_ended_is_told_nothing(path):
    entered, leave = threading.Event(), threading.Event()

    def hold(_db):
        entered.set()
        assert leave.wait(BOUND)

    async def walk_away():
        store = SqliteStore(path)
        await store.commits.__aenter__()
        store.commits.submit(hold, writes=False)
        assert await asyncio.to_thread(entered.wait, BOUND)
        return store

    store = asyncio.run(walk_away())
    leave.set()
    store.commits._waiting.put(None)
    store.commits._thread.join(BOUND)
    assert not store.commits._thread.is_alive()


# Fencing


async def test_a_succeeded_leader_can_write_no_more(path):
    async with SqliteStore(path) as old, SqliteStore(path) as new:
        assert await old.take_office(LEADER, now=0.0) < await new.take_office(LEADER, now=0.0)
        told = asyncio.Event()
        old.commits.fenced = lambda _why: told.set()
        for write in (
            accepting(old),
            old.save_peer(Peer(id=BOB, name="bob")),
            old.move(BOB, [1], Event.SEE, now=0.0),
            old.take_office(LEADER, now=0.0),
        ):
            with pytest.raises(FencedError):
                await write
        with anyio.fail_after(BOUND):
            await told.wait()
        await accepting(new, "kept")
        assert await texts(new) == ["kept"]


# Schemas


async def test_two_that_open_a_new_file_at_once_make_one_schema(path, monkeypatch):
    asked, outrun = schema._version, []

    def slow(db):
        version = asked(db)
        if not outrun:
            outrun.append(version)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                schema.migrate(other)
        return version

    monkeypatch.setattr(schema, "_version", slow)
    async with SqliteStore(path) as store:
        await accepting(store)
    assert outrun == [0]


@pytest.mark.fault("F22")
async def test_a_schema_newer_than_ours_is_refused_and_not_touched(path):
    raw(path, f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}", "CREATE TABLE leadership (x)")
    error = await refused(path)
    assert "Upgrade claude-peers" in error.remedy
    assert raw(path, "PRAGMA user_version", "SELECT name FROM sqlite_master") == [
        [(len(schema.MIGRATIONS) + 1,)],
        [("leadership",)],
    ]


@pytest.mark.fault("F23")
async def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    broken = (*schema.MIGRATIONS[0], "CREATE NONSENSE")
    monkeypatch.setattr(schema, "MIGRATIONS", (broken,))
    assert "NONSENSE" in str(await refused(path))
    assert raw(path, "PRAGMA user_version", "SELECT * FROM sqlite_master") == [[(0,)], []]


async def test_why_a_migration_failed_is_told_even_if_nothing_is_left_to_roll_back(
    path, monkeypatch
):
    monkeypatch.setattr(schema, "MIGRATIONS", (("ROLLBACK", "CREATE NONSENSE"),))
    assert "NONSENSE" in str(await refused(path))


# Files that refuse


@pytest.mark.parametrize("content", [b"garbage " * 200, b"SQLite format 3\0" + b"\xff" * 2000])
async def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path, content):
    file = tmp_path / "mail.db"
    file.write_bytes(content)
    error = await refused(str(file))
    assert "claude-peers salvage" in error.remedy
    assert file.read_bytes() == content


async def test_a_folder_is_no_database(tmp_path):
    assert "CLAUDE_PEERS_DB" in (await refused(str(tmp_path))).remedy


async def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    assert "CLAUDE_PEERS_DB" in (await refused(str(tmp_path / "none" / "mail.db"))).remedy


async def test_a_file_that_may_not_be_written_is_refused(path):
    raw(path, "CREATE TABLE t (x)")
    os.chmod(path, stat.S_IRUSR)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everything")
    assert "writable" in (await refused(path)).remedy


async def test_a_database_that_turned_read_only_refuses_what_is_sent(path):
    async with SqliteStore(path, lambda db: db.execute("PRAGMA query_only = ON")) as store:
        with pytest.raises(StoreError, match="writable"):
            await accepting(store)
        assert await texts(store) == []


@pytest.mark.fault("F16")
async def test_a_full_disk_refuses_what_is_sent_and_keeps_what_was_accepted(path):
    async with SqliteStore(path) as store:
        await accepting(store, "kept")
        ((pages,),) = await query(store, "PRAGMA page_count")
        await query(store, f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="Free some space"):
            await accepting(store, "x" * 100_000)
        assert await texts(store) == ["kept"]
        await query(store, "PRAGMA max_page_count = 100000")
        await accepting(store, "again")
        assert await texts(store) == ["kept", "again"]
        assert (await store.ledger()).balanced


async def test_a_database_that_another_program_has_locked_is_waited_for_and_then_refused(
    path, monkeypatch
):
    monkeypatch.setattr(commits, "BUSY", 0.01)
    async with SqliteStore(path) as store:
        await accepting(store, "kept")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="Another program holds the database") as caught:
                await accepting(store, "refused")
            assert caught.value.retry_after
            assert await texts(store) == ["kept"]
            other.execute("ROLLBACK")
        await accepting(store, "again")
        assert await texts(store) == ["kept", "again"]


async def test_a_new_database_that_another_program_has_locked_is_refused(path, monkeypatch):
    monkeypatch.setattr(commits, "BUSY", 0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "Another program" in (await refused(path)).remedy


@pytest.mark.fault("F20")
async def test_who_waits_for_a_lock_does_not_hold_up_the_event_loop(path):
    async with SqliteStore(path) as store:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = accepting(store)
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waiting.done()
            other.execute("ROLLBACK")
        await waiting


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (sqlite3.OperationalError("database is locked"), "Another program"),
        (sqlite3.OperationalError("database or disk is full"), "Free some space"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "writable"),
        (OSError("unable to open"), "writable"),
        (sqlite3.DatabaseError("database disk image is malformed"), "claude-peers salvage"),
        (sqlite3.OperationalError("disk I/O error"), "Look at the disk"),
    ],
    ids=str,
)
def test_each_failure_names_its_remedy(error, remedy):
    told = translate(error)
    assert isinstance(told, StoreError) and remedy in told.remedy and str(error) in str(told)


@pytest.mark.parametrize("error", [FencedError(), ValueError("a bug")], ids=["ours", "a bug"])
def test_what_is_not_the_databases_fault_stays_what_it_is(error):
    assert translate(error) is error
