"""A database with a history: mail that was read long ago, written at once."""

from claude_peers.stores.sqlite.store import SqliteStore


async def remember(store: SqliteStore, count: int, *, keys: int = 1000) -> None:
    """Put messages of ann into bob's mailbox, all of them read by now, and old dedupe keys.

    The triggers, which do all of it one by one, are away meanwhile.
    """

    def work(db) -> None:
        numbers = (
            f"WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT {count})"
        )
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        kept = triggers.fetchall()
        for name, _ in kept:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(
            "INSERT INTO mail (uid, from_id, to_id, text, size, sent_at, state, unread, verified, "
            f"expires_at, ended_at) {numbers} "
            "SELECT i, 'ann', 'bob', 'old', 3, '', 'seen', 0, 0, 1e9, 0.0 FROM n"
        )
        db.execute(
            f"INSERT INTO dedupe {numbers} "
            f"SELECT 'ann', lower(hex(randomblob(12))), '', i, 0.0 FROM n WHERE i <= {keys}"
        )
        for name in ("accepted", "seen"):
            db.execute(
                "INSERT INTO tally VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + ?",
                [name, count, count],
            )
        for _, statement in kept:
            db.execute(statement)
        db.execute("ANALYZE")

    await store.commits.submit(work)
