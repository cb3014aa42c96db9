"""A database of an earlier schema, brought up with what is in it."""

import contextlib
import sqlite3

import pytest
from support.brokers import LEADER, NO_LIMITS, draft

from claude_peers.broker.ports import Claim
from claude_peers.core.models import PeerId, State
from claude_peers.stores.sqlite import schema
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "mail.db")


def raw(path: str, *statements: str) -> list:
    """Run statements on the file from outside."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return [db.execute(statement).fetchall() for statement in statements]


async def query(store, sql: str):
    return await store.commits.submit(lambda db: db.execute(sql).fetchall(), writes=False)


async def test_a_database_of_the_first_schema_is_brought_up_with_its_mail(path):
    assert len(schema.MIGRATIONS) > 1
    insert = (
        "INSERT INTO mail (uid, from_id, to_id, text, size, sent_at, state, unread, verified, "
        "reply_to, expires_at, ended_at, reason) VALUES "
    )
    raw(
        path,
        *schema.MIGRATIONS[0],
        insert + "('u1', 'ann', 'bob', 'hi', 2, 'then', 'queued', 1, 1, NULL, 1e9, NULL, NULL)",
        insert + "('u2', 'ann', 'bob', 'ho', 2, 'then', 'leased', 1, 1, 1, 1e9, NULL, NULL)",
        insert + "('u3', 'ann', 'bob', 'no', 2, 'then', 'dead', 0, 0, NULL, 5.0, 5.0, 'late')",
        "UPDATE mailbox SET unread = 2, size = 4",  # it never died: it came in dead
        "INSERT INTO peer (id, name, boot, host, cwd, summary, client, route, trust, presence, "
        "keys, registered_at, last_seen) VALUES "
        "('bob', 'bob', '', '', '/r', '', '', '', 'open', 'away', '[\"k\"]', '', '')",
        "PRAGMA user_version = 1",
    )
    async with SqliteStore(path) as store:
        assert await query(store, "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
        (known,) = await store.peers()
        assert (known.keys, known.former, known.muted) == (("k",), (), ())
        await store.take_office(LEADER, now=1.0)
        first, second, dead = await store.history(limit=9)
        assert (first.intent, first.thread, first.hops, first.to_name) == ("", None, 0, None)
        assert (second.state, second.reply_to, second.inherited) == (State.QUEUED, 1, False)
        assert [each.id for each in await store.dead_letters(BOB, limit=9)] == [dead.id]
        assert dead.reason == "late"
        assert [each.event for each in (await store.stories([2]))[0].steps] == ["return"]
        assert await store.owed(now=9e9, limit=9) == []
        assert [each.id for each in await store.hand_out(BOB, Claim(), now=2.0)] == [1, 2]
        answer = await store.accept(draft(sender="bob", to="ann", reply_to=2), NO_LIMITS, now=2.0)
        assert (answer.message.thread, answer.message.hops, answer.message.id) == (2, 1, 4)
        assert (await store.mailbox(BOB)).unread == 1
        assert (await store.ledger()).balanced
        assert await query(store, "PRAGMA integrity_check") == [("ok",)]


async def test_a_hook_token_of_an_earlier_schema_counts_and_signs_nothing(path):
    before = schema.MIGRATIONS.index(schema._HOOK_SECRETS)
    raw(
        path,
        *(statement for each in schema.MIGRATIONS[:before] for statement in each),
        "INSERT INTO hook_token VALUES ('ci', 'build/#', 'h', 'then')",
        f"PRAGMA user_version = {before}",
    )
    async with SqliteStore(path) as store:
        (token,) = await store.hook_tokens()
    assert (token.name, token.token_hash, token.secret) == ("ci", "h", "")


async def test_a_new_database_has_the_same_schema_as_one_brought_up(path, tmp_path):
    raw(path, *schema.MIGRATIONS[0], "PRAGMA user_version = 1")
    other = str(tmp_path / "new.db")
    shapes = []
    for each in (path, other):
        async with SqliteStore(each):
            pass
        shapes.append(raw(each, "SELECT name, sql FROM sqlite_master ORDER BY name"))
    assert shapes[0] == shapes[1]
