"""Taking over from upstream in the same file and from agentmesh elsewhere, and giving back."""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.brokers import NO_LIMITS, Machine, draft

from claude_peers.core.delivery import Event
from claude_peers.core.models import PeerId, Presence, Process, Trust
from claude_peers.stores.sqlite.adopt import Adoption
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

BOB = PeerId("bobbobbo")
LIFETIME = 1000.0

# claude-peers-mcp broker.ts, as it creates them
UPSTREAM_PEERS = """
    CREATE TABLE IF NOT EXISTS peers (
        id TEXT PRIMARY KEY, pid INTEGER NOT NULL, cwd TEXT NOT NULL, git_root TEXT, tty TEXT,
        summary TEXT NOT NULL DEFAULT '', registered_at TEXT NOT NULL, last_seen TEXT NOT NULL
    )
"""
UPSTREAM_MESSAGES = """
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT NOT NULL, to_id TEXT NOT NULL,
        text TEXT NOT NULL, sent_at TEXT NOT NULL, delivered INTEGER NOT NULL DEFAULT 0,
        FOREIGN KEY (from_id) REFERENCES peers(id), FOREIGN KEY (to_id) REFERENCES peers(id)
    )
"""
# agentmesh 0.4, as far as it differs
MESH_PEERS = """
    CREATE TABLE peers (
        id TEXT PRIMARY KEY, pid INTEGER, cwd TEXT, git_root TEXT, tty TEXT,
        summary TEXT NOT NULL DEFAULT '', registered_at TEXT NOT NULL, last_seen TEXT NOT NULL,
        hostname TEXT NOT NULL DEFAULT 'localhost', agent_type TEXT NOT NULL DEFAULT 'claude-code',
        fleet_id TEXT, device_id TEXT, default_qos INTEGER NOT NULL DEFAULT 1, broker_url TEXT
    )
"""
MESH_MESSAGES = """
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT NOT NULL, to_id TEXT NOT NULL,
        text TEXT NOT NULL, topic TEXT, sent_at TEXT NOT NULL,
        delivered INTEGER NOT NULL DEFAULT 0, qos INTEGER NOT NULL DEFAULT 1, expires_at TEXT,
        retry_count INTEGER NOT NULL DEFAULT 0
    )
"""


class Upstream:
    """The other implementation's broker, as far as its database shows."""

    def __init__(self, path: str, *tables: str) -> None:
        self.path = path
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            for table in tables or (UPSTREAM_PEERS, UPSTREAM_MESSAGES):
                db.execute(table)

    def _open(self):
        return contextlib.closing(sqlite3.connect(self.path, isolation_level=None))

    def query(self, sql: str, values: Sequence = ()) -> list:
        with self._open() as db:
            return db.execute(sql, values).fetchall()

    def register(self, peer_id: str, **fields) -> None:
        row = {"cwd": "/r", "registered_at": "then", "last_seen": "now", "id": peer_id, **fields}
        marks = ", ".join("?" * len(row))
        sql = f"INSERT INTO peers ({', '.join(row)}) VALUES ({marks})"
        self.query(sql, list(row.values()))

    def send(self, text: str, *, to: str = BOB, delivered: int = 0) -> None:
        sql = "INSERT INTO messages (from_id, to_id, text, sent_at, delivered) VALUES (?,?,?,?,?)"
        self.query(sql, ["annannan", to, text, "then", delivered])

    def content(self) -> bytes:
        return Path(self.path).read_bytes()

    def unread(self) -> list[str]:
        return [row[0] for row in self.query("SELECT text FROM messages WHERE delivered = 0")]


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "mail.db")


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def opened(path, machine):
    """Return what opens our store on the file, taking over what is there."""

    def opening(elsewhere: str | None = None) -> SqliteStore:
        adoption = Adoption(
            identify=machine.identify,
            boot=machine.boot,
            host=machine.host,
            now=0.0,
            lifetime=LIFETIME,
            elsewhere=elsewhere,
        )
        return SqliteStore(path, adoption)

    return opening


async def texts(store) -> list[str]:
    return [message.text for message in await store.unread(BOB)]


async def taken(store) -> list[str]:
    """Read a mailbox and have seen it."""
    messages = await store.unread(BOB)
    await store.move(BOB, [message.id for message in messages], Event.SEE, now=0.0)
    return [message.text for message in messages]


async def test_a_new_file_has_nothing_to_take_over(opened):
    async with opened() as store:
        assert await store.peers() == []
        assert (await store.ledger()).accepted == 0


@pytest.mark.bug("P2")
@pytest.mark.fault("F21")
async def test_unread_mail_of_upstream_is_taken_over_in_its_order(path, opened):
    upstream = Upstream(path)
    upstream.send("read", delivered=1)
    upstream.send("one")
    upstream.send("other", to="cidcidci")
    upstream.send("two 🦊")
    async with opened() as store:
        mail = await store.unread(BOB)
        assert [(m.text, m.from_id, m.sent_at, m.verified) for m in mail] == [
            ("one", "annannan", "then", False),
            ("two 🦊", "annannan", "then", False),
        ]
        assert len({m.uid for m in mail}) == 2
        ledger = await store.ledger()
        assert ledger.balanced and ledger.accepted == 3
        box = await store.mailbox(BOB)
        assert (box.unread, box.size) == (2, len("onetwo 🦊".encode()))


async def test_mail_that_was_taken_over_dies_like_any_other(path, opened):
    Upstream(path).send("old")
    async with opened() as store:
        assert await store.tidy(now=LIFETIME - 1, most=10) == 0
        assert await store.tidy(now=LIFETIME, most=10) == 1


async def test_a_running_peer_of_upstream_is_taken_over_as_its_process(path, opened, machine):
    upstream = Upstream(path)
    machine.start(41)
    upstream.register(
        BOB, pid=41, cwd="/r/src", git_root="/r", tty="pts/1", summary="works", last_seen="now"
    )
    async with opened() as store:
        (peer,) = await store.peers()
    assert (peer.id, peer.name, peer.pid) == (BOB, BOB, 41)
    assert peer.process == Process(pid=41, started="morning")
    assert (peer.trust, peer.presence) == (Trust.PROCESS, Presence.PRESENT)
    assert (peer.cwd, peer.git_root, peer.tty, peer.summary) == ("/r/src", "/r", "pts/1", "works")
    assert (peer.boot, peer.host) == (machine.boot, machine.host)
    assert (peer.registered_at, peer.last_seen) == ("then", "now")


async def test_a_peer_of_upstream_whose_process_is_gone_is_away(path, opened):
    Upstream(path).register(BOB, pid=41)
    async with opened() as store:
        (peer,) = await store.peers()
    assert (peer.process, peer.pid, peer.trust) == (None, 41, Trust.OPEN)
    assert peer.presence is Presence.AWAY


@pytest.mark.parametrize(
    ("hostname", "ours"), [("localhost", True), ("here", True), ("far", False)]
)
async def test_only_a_pid_of_this_machine_names_a_process(path, opened, machine, hostname, ours):
    machine.start(41)
    Upstream(path, MESH_PEERS, MESH_MESSAGES).register(BOB, pid=41, hostname=hostname)
    async with opened() as store:
        (peer,) = await store.peers()
    assert (peer.process is not None) is ours
    assert peer.host == (machine.host if ours else "far")


async def test_columns_that_a_fork_has_or_lacks_do_not_matter(path, opened):
    upstream = Upstream(
        path,
        "CREATE TABLE peers (id TEXT, channel_loaded INTEGER)",
        "CREATE TABLE messages (id INTEGER PRIMARY KEY, from_id, to_id, text, sent_at, delivered, "
        "polled_at, pushed)",
    )
    upstream.query("INSERT INTO peers VALUES (?, 1)", [BOB])
    upstream.send("one")
    async with opened() as store:
        (peer,) = await store.peers()
        assert (peer.id, peer.pid, peer.cwd, peer.registered_at) == (BOB, None, "", "")
        assert peer.presence is Presence.PRESENT
        assert await texts(store) == ["one"]


@pytest.mark.parametrize(
    "tables",
    [
        ["CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)"],
        ["CREATE TABLE peers (id TEXT)"],
    ],
    ids=["other columns", "no messages"],
)
async def test_tables_of_somebody_else_are_left_alone(path, opened, tables):
    Upstream(path, *tables)
    async with opened() as store:
        assert (await store.peers(), (await store.ledger()).accepted) == ([], 0)


async def test_mail_without_any_peers_is_taken_over(path, opened):
    Upstream(path, UPSTREAM_MESSAGES).send("one")
    async with opened() as store:
        assert await texts(store) == ["one"]


async def test_peers_that_cannot_be_told_apart_are_not_taken_over(path, opened):
    Upstream(path, "CREATE TABLE peers (name TEXT)", UPSTREAM_MESSAGES).send("one")
    async with opened() as store:
        assert (await store.peers(), await texts(store)) == ([], ["one"])


# Back to upstream, and forth again


@pytest.mark.fault("F21")
async def test_upstream_finds_its_tables_as_it_left_them(path, opened):
    upstream = Upstream(path)
    upstream.register(BOB, pid=1)
    upstream.send("one")
    before = upstream.query("SELECT * FROM peers"), upstream.query("SELECT * FROM messages")
    async with opened() as store:
        await taken(store)
        await store.accept(draft("ours", to=BOB), NO_LIMITS, now=0.0)
    assert upstream.query("SELECT * FROM peers") == before[0]
    assert upstream.query("SELECT * FROM messages") == before[1]


async def test_each_message_is_taken_over_once(path, opened):
    upstream = Upstream(path)
    upstream.send("one")
    async with opened() as store:
        assert await taken(store) == ["one"]
    async with opened() as store:
        assert await texts(store) == []
    upstream.send("two")
    assert upstream.unread() == ["one", "two"]
    async with opened() as store:
        assert await taken(store) == ["two"]
        assert (await store.ledger()).accepted == 2


async def test_a_peer_that_came_to_upstream_meanwhile_is_taken_over_even_without_mail(
    path, opened, machine
):
    upstream = Upstream(path)
    async with opened():
        pass
    machine.start(41)
    upstream.register("runsruns", pid=41)
    upstream.register("gonegone", pid=42)
    async with opened() as store:
        assert [peer.id for peer in await store.peers()] == ["runsruns"]


async def test_who_is_known_already_is_not_taken_over_again(path, opened, machine):
    upstream = Upstream(path)
    machine.start(41)
    upstream.register(BOB, pid=41, summary="theirs")
    async with opened() as store:
        (peer,) = await store.peers()
        assert peer.summary == "theirs"
    upstream.query("UPDATE peers SET summary = 'changed'")
    upstream.send("one")
    async with opened() as store:
        (peer,) = await store.peers()
        assert peer.summary == "theirs"


async def test_what_was_taken_over_is_not_taken_again_after_upstream_deleted_newer_mail(
    path, opened, machine
):
    upstream = Upstream(path)
    upstream.send("one")
    upstream.send("two")
    async with opened() as store:
        assert await taken(store) == ["one", "two"]
    upstream.query("DELETE FROM messages WHERE text = 'two'")
    machine.start(41)
    upstream.register(BOB, pid=41)
    for _ in range(2):
        async with opened() as store:
            assert await texts(store) == []


# agentmesh, elsewhere


@pytest.fixture(params=["agentmesh.db", "my mesh?mode=rwc#1%20.db"])
def mesh(request, tmp_path) -> Upstream:
    return Upstream(str(tmp_path / request.param), MESH_PEERS, MESH_MESSAGES)


async def test_a_database_elsewhere_is_taken_over_once_and_only_read(path, opened, mesh, machine):
    machine.start(41)
    mesh.register(BOB, pid=41)
    mesh.send("one")
    before = mesh.content()
    async with opened(mesh.path) as store:
        assert [peer.id for peer in await store.peers()] == [BOB]
        assert await taken(store) == ["one"]
    assert mesh.content() == before
    mesh.send("two")
    async with opened(mesh.path) as store:
        assert await texts(store) == ["two"]


async def test_both_sources_have_a_watermark_of_their_own(path, opened, mesh):
    upstream = Upstream(path)
    for text in ("a", "b", "c"):
        upstream.send(text)
    mesh.send("d")
    async with opened(mesh.path) as store:
        assert await texts(store) == ["a", "b", "c", "d"]


async def test_a_database_elsewhere_can_be_in_use(path, opened, mesh):
    with contextlib.closing(sqlite3.connect(mesh.path, isolation_level=None)) as theirs:
        mesh.send("one")
        theirs.execute("BEGIN IMMEDIATE")
        async with opened(mesh.path) as store:
            assert await texts(store) == ["one"]
        theirs.execute("ROLLBACK")


@pytest.mark.parametrize(
    "content", [None, b"", b"garbage " * 200], ids=["none", "empty", "garbage"]
)
async def test_a_source_that_cannot_be_read_does_not_keep_anybody_from_leading(
    path, opened, tmp_path, content
):
    Upstream(path).send("one")
    elsewhere = tmp_path / "elsewhere.db"
    if content is not None:
        elsewhere.write_bytes(content)
    async with opened(str(elsewhere)) as store:
        assert await texts(store) == ["one"]
        await store.accept(draft("two", to=BOB), NO_LIMITS, now=0.0)
    assert elsewhere.exists() is (content is not None)


async def test_mail_that_does_not_fit_is_left_for_the_next_time_as_a_whole(path, opened, caplog):
    upstream = Upstream(
        path,
        UPSTREAM_PEERS,
        "CREATE TABLE messages (id INTEGER PRIMARY KEY, from_id, to_id, text, sent_at, delivered)",
    )
    upstream.register(BOB, pid=1)
    upstream.send("one")
    upstream.send(None)
    async with opened() as store:
        assert (await store.peers(), await texts(store)) == ([], [])
    assert "nothing was taken over from main: NOT NULL" in caplog.text
    upstream.query("DELETE FROM messages WHERE text IS NULL")
    async with opened() as store:
        assert await texts(store) == ["one"]
