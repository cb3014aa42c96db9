"""A store that accepts messages, and says so: what the crash tests cut off.

`python accepting.py DATABASE COUNT SYNCHRONOUS` prints `ACK id` for each message that the store has
reported as accepted, in the very words and order in which a sender would learn of it.
"""

import asyncio
import sqlite3
import sys

from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, PeerId, Process
from claude_peers.stores.sqlite.commits import Commits
from claude_peers.stores.sqlite.store import SqliteStore

PAGES = 40
"""Pages in the log that are written back: often enough to be cut off in the middle of it."""
NO_LIMITS = Limits(per_minute=0, mailbox=0)


def unlike_ours(synchronous: str) -> None:
    """Let every database be opened with another setting of `PRAGMA synchronous`."""
    as_always = Commits._open

    def opened(commits: Commits) -> sqlite3.Connection:
        db = as_always(commits)
        db.execute(f"PRAGMA wal_autocheckpoint = {PAGES}")
        if synchronous:
            db.execute(f"PRAGMA synchronous = {synchronous}")
        return db

    Commits._open = opened  # type: ignore[method-assign]


async def accept(path: str, count: int) -> None:
    """Accept so many messages, one after the other."""
    async with SqliteStore(path) as store:
        await store.take_office(Process(pid=1, started="1"), now=0.0)
        for number in range(count):
            draft = Draft(
                from_id=PeerId("ann"),
                to_id=PeerId("bob"),
                text=f"text {number} " + "x" * 200,
                sent_at="2026-01-01T00:00:00.000Z",
                expires_at=1e9,
                dedupe_key=str(number),
            )
            receipt = await store.accept(draft, NO_LIMITS, now=0.0)
            sys.stdout.write(f"ACK {receipt.message.id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    unlike_ours(sys.argv[3] if len(sys.argv) > 3 else "")
    asyncio.run(accept(sys.argv[1], int(sys.argv[2])))
