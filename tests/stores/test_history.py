"""A database does not get slower with what was read long ago, nor larger than its purges allow."""

import asyncio
import os

import pytest
from support.brokers import LEADER, NO_LIMITS, draft
from support.history import remember

from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import DIRECT_TTL, Event
from claude_peers.core.models import PeerId
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")
IO = "/proc/thread-self/io"
TREES = 6
"""Tables and indexes in which a send looks something up: one page each while they are new."""
DEEPER = 3
"""Pages between the root and the leaves of a table of a million rows."""
WARMING = 10
"""Rounds until the pages in use are in memory."""
ROUNDS = 40
"""So few that SQLite does not copy its log meanwhile: that reads each page of the log once."""


def reads(_db) -> int:
    """Return how many reads this thread has made so far, this one included."""
    with open(IO, encoding="ascii") as file:
        return int(file.read().split("syscr: ")[1].split()[0])


async def reads_of(store, work) -> int:
    """Return how many pages the store reads from the disk for some work."""
    idle = await store.commits.submit(reads, writes=False)
    before = await store.commits.submit(reads, writes=False)
    await work
    return await store.commits.submit(reads, writes=False) - before - (before - idle)


async def use(store, key: str) -> dict[str, int]:
    """Return the page reads of an empty poll, a send and a poll."""
    now = DEDUPE_WINDOW
    return {
        "empty poll": await reads_of(store, store.hand_out(BOB, Claim(), now=now)),
        "send": await reads_of(store, store.accept(draft(dedupe_key=key), NO_LIMITS, now=now)),
        "poll": await reads_of(store, store.hand_out(BOB, Claim(), now=now)),
    }


async def used(path: str, old: int, keys: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the page reads with nothing in memory, and those of many later rounds."""
    async with SqliteStore(path) as store:
        await store.take_office(LEADER, now=0.0)
        if old:
            await remember(store, old, keys=keys)
        while await store.tidy(now=DEDUPE_WINDOW, most=500):
            pass
    async with SqliteStore(path) as store:
        await store.take_office(LEADER, now=0.0)
        cold = await use(store, os.urandom(12).hex())
        for _ in range(WARMING):
            await use(store, os.urandom(12).hex())
        warm = dict.fromkeys(cold, 0)
        for _ in range(ROUNDS):
            for name, count in (await use(store, os.urandom(12).hex())).items():
                warm[name] += count
        return cold, warm


@pytest.mark.skipif(not os.path.exists(IO), reason="only Linux counts the reads of a thread")
@pytest.mark.parametrize("old", [100_000, 1_000_000])
@pytest.mark.parametrize("every", [1000, 1], ids=["few keys", "a key each"])
async def test_old_messages_cost_no_page_reads(tmp_path, old, every):
    cold, warm = await used(str(tmp_path / "new.db"), 0, 0)
    cold_now, warm_now = await used(str(tmp_path / "old.db"), old, old // every)
    print(f"page reads with {old} old messages: first {cold_now}, then in {ROUNDS} {warm_now}")
    # Where a leaf of a tree splits for the first time, its neighbour is read.
    assert warm_now["send"] <= warm["send"] + TREES
    assert warm_now | {"send": 0} == warm == {"empty poll": 0, "send": 0, "poll": 0}
    # A database that was just opened reads the way from each root to a leaf, once.
    for name in cold:
        assert cold_now[name] <= cold[name] + DEEPER * TREES, (name, cold, cold_now)


CHECKPOINT = 1000
"""Pages in the log at which SQLite writes them into the file and begins the log anew."""


def size_of(db) -> int:
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    return pages


async def live_a_day(store, now: float) -> None:
    """Accept a hundred messages, of which two are never read and one is answered."""
    drafts = [
        draft("x" * 500, dedupe_key=f"{now} {n}", expires_at=now + DIRECT_TTL) for n in range(100)
    ]
    await asyncio.gather(*(store.accept(each, NO_LIMITS, now=now) for each in drafts))
    handed = [each.id for each in await store.hand_out(BOB, Claim(), now=now)]
    await store.move(BOB, handed[2:], Event.SEE, now=now, via="check_messages")
    reply = draft("thanks", sender="bob", to="ann", reply_to=handed[2], expires_at=now + 1)
    await store.accept(reply, NO_LIMITS, now=now)
    while await store.tidy(now=now, most=500):
        pass


@pytest.mark.bug("U13")
async def test_the_database_grows_to_what_is_kept_and_no_further(tmp_path):
    day = max(KEEP_READ, DIRECT_TTL)
    full = 3 * int((KEEP_DEAD + DIRECT_TTL) / day)
    log = tmp_path / "mail.db-wal"
    pages, logs = [], []
    async with SqliteStore(str(tmp_path / "mail.db")) as store:
        await store.take_office(LEADER, now=0.0)
        for today in range(2 * full):
            await live_a_day(store, today * day)
            pages.append(await store.commits.submit(size_of, writes=False))
            logs.append(log.stat().st_size)
        ledger = await store.ledger()
    assert ledger.balanced and ledger.purged > (2 * full - 8) * 98
    assert set(pages[full:]) == {max(pages)}, pages
    assert max(pages) < 2 * pages[0], pages
    assert max(logs) < 2 * CHECKPOINT * 4096, logs
