"""What a send and a poll cost, counted: it must not grow with the mail that was read long ago."""

import contextlib
import itertools
import os
import re
from dataclasses import dataclass

import pytest
from support.brokers import LEADER, NO_LIMITS, draft
from support.history import remember

from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import Event
from claude_peers.core.models import Peer, PeerId
from claude_peers.stores.retention import DEDUPE_WINDOW
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")
KEYS = itertools.count()


@pytest.fixture
async def store(tmp_path):
    async with SqliteStore(str(tmp_path / "mail.db")) as opened:
        await opened.take_office(LEADER, now=0.0)
        yield opened


@dataclass
class Cost:
    """What ran inside a `measured` block: statements, and steps of SQLite's machine."""

    statements: list[str]
    steps: int = 0


@contextlib.asynccontextmanager
async def measured(store):
    cost = Cost([])

    def step() -> int:
        cost.steps += 1
        return 0

    def watch(db, *, on: bool) -> None:
        db.set_trace_callback(cost.statements.append if on else None)
        db.set_progress_handler(step if on else None, 1)

    await store.commits.submit(lambda db: watch(db, on=True), writes=False)
    yield cost
    await store.commits.submit(lambda db: watch(db, on=False), writes=False)
    # Without the end of the piece that began to watch, and the beginning of that which ended.
    cost.statements[:] = cost.statements[2:-3]


async def send(store) -> None:
    await store.accept(draft(dedupe_key=f"key {next(KEYS)}"), NO_LIMITS, now=DEDUPE_WINDOW)


async def empty_poll(store) -> None:
    assert await store.hand_out(BOB, Claim(), now=0.0) == []


async def full_poll(store) -> None:
    await send(store)
    (message,) = await store.hand_out(BOB, Claim(limit=50, exclude=(10**9,)), now=0.0)
    assert await store.hand_out(BOB, Claim(seen=(message.id,)), now=0.0) == []


async def push(store) -> None:
    await send(store)
    (message,) = await store.unread(BOB, limit=50)
    await store.move(BOB, [message.id], Event.PUSH, now=0.0)
    await store.move(BOB, [message.id], Event.SEE, now=0.0)


async def answer(store) -> None:
    await send(store)
    (message,) = await store.unread(BOB)
    await store.accept(draft(sender="bob", to="ann", reply_to=message.id), NO_LIMITS, now=0.0)


async def look(store) -> None:
    await store.mailbox(BOB)
    await store.message(1)
    await store.ledger()


async def come_and_go(store) -> None:
    await store.save_peer(Peer(id=BOB, name="bob"))
    await store.save_peer(Peer(id=BOB, name="rob"))
    await store.forget_peers([BOB])


async def tidy(store) -> None:
    assert await store.tidy(now=1.0, most=500) == 0


async def succeed(store) -> None:
    await store.take_office(LEADER, now=0.0)


async def follow(store) -> None:
    await send(store)
    (message,) = await store.unread(BOB)
    await store.move(BOB, [message.id], Event.SEE, now=0.0, via="check_messages")
    assert len((await store.stories([message.id]))[0].steps) == 1


async def mute(store) -> None:
    await store.accept(draft(held=True), NO_LIMITS, now=0.0)
    (message,) = await store.admit(BOB, "ann", now=0.0)
    await store.move(BOB, [message.id], Event.SEE, now=0.0)


async def bequeath(store) -> None:
    await store.accept(draft(to="old", to_name="main"), NO_LIMITS, now=0.0)
    assert await store.readdress(PeerId("old"), BOB, "main", now=0.0) == 1
    (message,) = await store.unread(BOB)
    await store.move(BOB, [message.id], Event.SEE, now=0.0)


async def remind(store) -> None:
    receipt = await store.accept(draft(owed_at=1.0), NO_LIMITS, now=0.0)
    assert len(await store.owed(by=BOB, limit=9)) == 1
    (request,) = await store.owed(now=1.0, limit=9)
    notice = draft(to="ann", notice_of=request.id)
    told = await store.accept(notice, NO_LIMITS, now=1.0)
    await store.move(PeerId("ann"), [told.message.id], Event.SEE, now=0.0)
    await store.move(BOB, [receipt.message.id], Event.SEE, now=0.0)


async def bury(store) -> None:
    await send(store)
    (message,) = await store.unread(BOB)
    await store.move(BOB, [message.id], Event.EXPIRE, now=1e9)
    assert len(await store.dead_letters(BOB, limit=1)) == 1
    assert len(await store.dead_letters(limit=1)) == 1


async def read_on(store) -> None:
    await store.history(after=10**9, limit=50)


async def look_back(store) -> None:
    await store.history(limit=2, newest=True)
    await store.history(before=2, limit=2, newest=True)


HOT = [
    *(send, empty_poll, full_poll, push, answer, look, come_and_go, tidy, succeed),
    *(follow, mute, bequeath, remind, bury, read_on, look_back),
]


async def cost_of(store, use) -> Cost:
    """Return what a use costs where nothing is unread, and no key is remembered."""
    for owner in (BOB, PeerId("ann")):
        for message in await store.unread(owner):
            await store.move(owner, [message.id], Event.SEE, now=0.0)
    await store.commits.submit(lambda db: db.execute("DELETE FROM dedupe WHERE at > 0") and None)
    async with measured(store) as cost:
        await use(store)
    return cost


@pytest.mark.parametrize("old", [100_000, 1_000_000])
async def test_an_operation_costs_the_same_however_much_was_read_before(store, old):
    for use in HOT:
        await cost_of(store, use)
    fresh = {use.__name__: await cost_of(store, use) for use in HOT}
    await remember(store, old)
    grown = {use.__name__: await cost_of(store, use) for use in HOT}
    for name, before in fresh.items():
        after = grown[name]
        assert len(after.statements) == len(before.statements), name
        assert after.steps <= before.steps * 2, (name, before.steps, after.steps)


@pytest.mark.parametrize("use", HOT, ids=lambda use: use.__name__)
async def test_no_statement_reads_all_mail(store, use):
    await remember(store, 100)
    async with measured(store) as cost:
        await use(store)
    plans = []
    for statement in cost.statements:
        if re.match("SELECT|INSERT|UPDATE|DELETE", statement):
            explained = f"EXPLAIN QUERY PLAN {statement}"
            rows = await store.commits.submit(
                lambda db, sql=explained: db.execute(sql).fetchall(), writes=False
            )
            plans += [row[3] for row in rows]
    assert plans
    scans = [plan for plan in plans if re.match(r"SCAN (mail|dedupe|mailbox)\b", plan)]
    # Which mail is leased is found among what is unread, once in an epoch; the dead letters of
    # all are asked for by the user, and are all that is read then.
    assert [scan for scan in scans if not re.search("mail_(expiry|dead)", scan)] == []


async def test_a_send_takes_one_transaction(store):
    async with measured(store) as cost:
        await send(store)
    assert cost.statements.count("COMMIT") == 1
    distinct = {each for each in cost.statements if not each.startswith("--")}  # triggers
    assert len(distinct) <= 10


async def test_an_empty_poll_writes_nothing(store, tmp_path):
    wal = str(tmp_path / "mail.db-wal")
    await send(store)
    await store.hand_out(BOB, Claim(), now=0.0)
    before = os.stat(wal)
    for _ in range(10):
        await empty_poll(store)
    after = os.stat(wal)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
