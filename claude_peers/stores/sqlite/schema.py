"""The database's tables, as migrations that are only ever appended to.

Table names are ours (`mail`, `peer`, …): an upstream database in the same file keeps its own
`peers` and `messages`, so going back to upstream works. What has to be counted is counted by
triggers, in the very transaction that changes it: nobody can forget to.
"""

import contextlib
import sqlite3
from collections.abc import Iterator

from claude_peers.core.errors import StoreError

_FIRST = (
    """
    CREATE TABLE leadership (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        epoch INTEGER NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL
    )
    """,
    "INSERT INTO leadership VALUES (1, 0, 0, '')",
    """
    CREATE TABLE peer (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
        pid INTEGER, process_pid INTEGER, process_started TEXT,
        boot TEXT NOT NULL, host TEXT NOT NULL, cwd TEXT NOT NULL,
        git_root TEXT, repo TEXT, tty TEXT, summary TEXT NOT NULL,
        client TEXT NOT NULL, route TEXT NOT NULL, trust TEXT NOT NULL, presence TEXT NOT NULL,
        token_hash TEXT, keys TEXT NOT NULL, registered_at TEXT NOT NULL, last_seen TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE mail (
        id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL,
        from_id TEXT NOT NULL, to_id TEXT NOT NULL, text TEXT NOT NULL, size INTEGER NOT NULL,
        sent_at TEXT NOT NULL, state TEXT NOT NULL, unread INTEGER NOT NULL,
        verified INTEGER NOT NULL, reply_to INTEGER, deliveries INTEGER NOT NULL DEFAULT 0,
        expires_at REAL NOT NULL, ended_at REAL, reason TEXT
    )
    """,
    "CREATE INDEX mail_unread ON mail (to_id, id) WHERE unread = 1",
    "CREATE INDEX mail_expiry ON mail (expires_at) WHERE unread = 1",
    "CREATE INDEX mail_ended ON mail (ended_at) WHERE unread = 0",
    """
    CREATE TABLE mailbox (
        peer_id TEXT PRIMARY KEY, unread INTEGER NOT NULL, size INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE tally (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE dedupe (
        sender TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL,
        mail_id INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (sender, key)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX dedupe_at ON dedupe (at)",
    "CREATE TABLE adopted (source TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TRIGGER mail_accepted AFTER INSERT ON mail BEGIN
        INSERT INTO tally VALUES ('accepted', 1) ON CONFLICT (name) DO UPDATE SET n = n + 1;
        INSERT INTO tally VALUES (new.state, 1) ON CONFLICT (name) DO UPDATE SET n = n + 1;
        INSERT INTO mailbox VALUES (new.to_id, 1, new.size) ON CONFLICT (peer_id)
            DO UPDATE SET unread = unread + 1, size = size + excluded.size;
    END
    """,
    """
    CREATE TRIGGER mail_moved AFTER UPDATE OF state ON mail WHEN old.state <> new.state BEGIN
        UPDATE tally SET n = n - 1 WHERE name = old.state;
        INSERT INTO tally VALUES (new.state, 1) ON CONFLICT (name) DO UPDATE SET n = n + 1;
    END
    """,
    """
    CREATE TRIGGER mail_ended AFTER UPDATE OF unread ON mail WHEN old.unread > new.unread BEGIN
        UPDATE mailbox SET unread = unread - 1, size = size - old.size WHERE peer_id = old.to_id;
    END
    """,
    """
    CREATE TRIGGER mail_purged AFTER DELETE ON mail BEGIN
        UPDATE tally SET n = n - 1 WHERE name = old.state;
        INSERT INTO tally VALUES ('purged', 1) ON CONFLICT (name) DO UPDATE SET n = n + 1;
    END
    """,
)

_STORIES = (
    "ALTER TABLE peer ADD COLUMN former TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE peer ADD COLUMN muted TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE mail ADD COLUMN intent TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE mail ADD COLUMN thread INTEGER",
    "ALTER TABLE mail ADD COLUMN hops INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE mail ADD COLUMN to_name TEXT",
    "ALTER TABLE mail ADD COLUMN inherited INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE mail ADD COLUMN owed_at REAL",
    # One line of JSON for each step. In the message's own row: it is written anyway, and a
    # table of steps would cost pages of its own for each state and each purge.
    "ALTER TABLE mail ADD COLUMN steps TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX mail_owed ON mail (owed_at) WHERE owed_at IS NOT NULL",
    "CREATE INDEX mail_owing ON mail (to_id) WHERE owed_at IS NOT NULL",
    "CREATE INDEX mail_dead ON mail (to_id, id) WHERE state = 'dead'",
    """
    CREATE TRIGGER mail_readdressed AFTER UPDATE OF to_id ON mail
    WHEN new.unread = 1 AND old.to_id <> new.to_id BEGIN
        UPDATE mailbox SET unread = unread - 1, size = size - old.size WHERE peer_id = old.to_id;
        INSERT INTO mailbox VALUES (new.to_id, 1, new.size) ON CONFLICT (peer_id)
            DO UPDATE SET unread = unread + 1, size = size + excluded.size;
    END
    """,
)

_MACHINES = (
    """
    CREATE TABLE machine (
        name TEXT PRIMARY KEY, code_hash TEXT, expires_at REAL NOT NULL, token_hash TEXT,
        invited_at TEXT NOT NULL, joined_at TEXT, revoked_at TEXT
    ) WITHOUT ROWID
    """,
    "ALTER TABLE peer ADD COLUMN machine TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE peer ADD COLUMN shared INTEGER NOT NULL DEFAULT 0",
)

_MACHINE_SEEN = ("ALTER TABLE machine ADD COLUMN seen_at REAL NOT NULL DEFAULT 0",)

_TOPICS = (
    """
    CREATE TABLE subscription (
        peer_id TEXT NOT NULL, pattern TEXT NOT NULL, PRIMARY KEY (peer_id, pattern)
    )
    """,
    """
    CREATE TABLE retained (
        topic TEXT PRIMARY KEY, from_id TEXT NOT NULL, text TEXT NOT NULL, sent_at TEXT NOT NULL,
        verified INTEGER NOT NULL, expires_at REAL
    ) WITHOUT ROWID
    """,
    "ALTER TABLE mail ADD COLUMN topic TEXT",
    "ALTER TABLE mail ADD COLUMN retained INTEGER NOT NULL DEFAULT 0",
    # The order in which triggers run is nobody's promise: the count must be there to be changed.
    """
    CREATE TRIGGER mail_retained AFTER UPDATE OF state ON mail
    WHEN new.state = 'dead' AND new.retained = 1 BEGIN
        INSERT INTO tally VALUES ('dead', 0) ON CONFLICT (name) DO NOTHING;
        DELETE FROM mail WHERE id = new.id;
    END
    """,
    """
    CREATE TRIGGER peer_forgotten AFTER DELETE ON peer BEGIN
        DELETE FROM subscription WHERE peer_id = old.id;
    END
    """,
)

_WILLS = (
    "ALTER TABLE mail ADD COLUMN qos INTEGER NOT NULL DEFAULT 1",
    """
    CREATE TABLE will (
        peer_id TEXT PRIMARY KEY, topic TEXT NOT NULL, text TEXT NOT NULL, qos INTEGER NOT NULL,
        retain INTEGER NOT NULL, armed INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER peer_without_will AFTER DELETE ON peer BEGIN
        DELETE FROM will WHERE peer_id = old.id;
    END
    """,
)

_PROFILES = ("ALTER TABLE peer ADD COLUMN profile TEXT NOT NULL DEFAULT '{}'",)

_WEBHOOKS = (
    """
    CREATE TABLE webhook (
        peer_id TEXT PRIMARY KEY, url TEXT NOT NULL, format TEXT NOT NULL, secret TEXT NOT NULL,
        token TEXT NOT NULL, problem TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE hook_token (
        name TEXT PRIMARY KEY, topic TEXT NOT NULL, token_hash TEXT NOT NULL,
        created_at TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER peer_without_webhook AFTER DELETE ON peer BEGIN
        DELETE FROM webhook WHERE peer_id = old.id;
    END
    """,
)

_HOOK_SECRETS = ("ALTER TABLE hook_token ADD COLUMN secret TEXT NOT NULL DEFAULT ''",)

_RETAINED_QOS = ("ALTER TABLE retained ADD COLUMN qos INTEGER NOT NULL DEFAULT 1",)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _FIRST,
    _STORIES,
    _MACHINES,
    _TOPICS,
    _WILLS,
    _PROFILES,
    _MACHINE_SEEN,
    _WEBHOOKS,
    _HOOK_SECRETS,
    _RETAINED_QOS,
)


_UPSTREAM = {"peers", "messages"}


def recognise(db: sqlite3.Connection) -> set[str]:
    """Return the tables of a database that is ours, upstream's, or new; nothing is written.

    Raises:
        StoreError: it is another program's, or a newer version's.
    """
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and not tables & {"leadership", *_UPSTREAM}:
        raise StoreError(
            "The database is another program's",
            "Choose another with CLAUDE_PEERS_DB; nothing in it was changed.",
        )
    _version(db)
    return tables


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema to this version, in one transaction.

    Raises:
        StoreError: a newer version of claude-peers has been here.
    """
    if _version(db) == len(MIGRATIONS):
        return
    with transaction(db):
        # Asked again, inside: another process may have been faster.
        for statements in MIGRATIONS[_version(db) :]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself; what counts is why.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"The database has schema {version}, this version knows {len(MIGRATIONS)}",
            "Upgrade claude-peers; until then this session uses the broker of a newer one.",
        )
    return version
