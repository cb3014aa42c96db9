"""Taking over peers and unread mail of an upstream database, and leaving it as it was.

Upstream keeps `peers` and `messages` in the very file we use; agentmesh 0.4 has its own. Both are
read up to a watermark, so that going back to upstream and forth again takes each message once.
Forks have more columns or fewer: only those that are there are read.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from claude_peers.core.models import Peer, PeerId, Process, Trust
from claude_peers.stores.sqlite import rows

OURS = "main"


@dataclass(frozen=True, slots=True)
class Adoption:
    """What to adopt, as a piece of work that runs when the database is opened.

    Attributes:
        identify: the running process of a pid, or None.
        boot: this machine's boot id.
        host: this machine's name.
        now: the present, in seconds since the epoch.
        lifetime: seconds an adopted message is kept unread.
        elsewhere: another upstream database, read only if it exists.
    """

    identify: Callable[[int], Process | None]
    boot: str
    host: str
    now: float
    lifetime: float
    elsewhere: str | None = None

    def __call__(self, db: sqlite3.Connection) -> None:
        """Adopt whatever is new, each source in one transaction."""
        self._adopt(db, OURS)
        if self.elsewhere is None:
            return
        try:
            db.execute("ATTACH DATABASE ? AS elsewhere", [f"file:{self.elsewhere}?mode=ro"])
        except sqlite3.Error:  # it is not there, or not readable: nothing to adopt
            return
        try:
            self._adopt(db, "elsewhere")
        finally:
            db.execute("DETACH DATABASE elsewhere")

    def _adopt(self, db: sqlite3.Connection, source: str) -> None:
        messages = _columns(db, source, "messages")
        if not {"id", "from_id", "to_id", "text", "sent_at", "delivered"} <= messages:
            return
        row = db.execute("SELECT upto FROM adopted WHERE source = ?", [source]).fetchone()
        (last,) = db.execute(f"SELECT coalesce(max(id), 0) FROM {source}.messages").fetchone()
        if row is not None and row[0] >= last:
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            self._adopt_peers(db, source)
            self._adopt_mail(db, source, after=row[0] if row else 0)
            db.execute("INSERT OR REPLACE INTO adopted VALUES (?, ?)", [source, last])
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _adopt_peers(self, db: sqlite3.Connection, source: str) -> None:
        there = _columns(db, source, "peers")
        if "id" not in there:
            return
        wanted = ("id", "pid", "cwd", "git_root", "tty", "summary", "registered_at", "last_seen")
        names = [name if name in there else f"NULL AS {name}" for name in wanted]
        found = db.execute(
            f"SELECT {', '.join(names)} FROM {source}.peers "
            "WHERE id NOT IN (SELECT id FROM peer) ORDER BY rowid"
        )
        for row in found.fetchall():
            db.execute(rows.SAVE_PEER, rows.peer_row(self._peer(row)))

    def _peer(self, row: tuple[str | int | None, ...]) -> Peer:
        peer_id, pid, cwd, root, tty, summary, registered, seen = row
        process = self.identify(pid) if isinstance(pid, int) else None
        return Peer(
            id=PeerId(str(peer_id)),
            name=str(peer_id),
            pid=pid if isinstance(pid, int) else None,
            process=process,
            boot=self.boot,
            host=self.host,
            cwd=str(cwd or ""),
            git_root=None if root is None else str(root),
            tty=None if tty is None else str(tty),
            summary=str(summary or ""),
            trust=Trust.OPEN if process is None else Trust.PROCESS,
            registered_at=str(registered or ""),
            last_seen=str(seen or ""),
        )

    def _adopt_mail(self, db: sqlite3.Connection, source: str, *, after: int) -> None:
        db.execute(
            "INSERT INTO mail (uid, from_id, to_id, text, size, sent_at, state, unread, verified, "
            "expires_at) SELECT lower(hex(randomblob(12))), from_id, to_id, text, "
            "length(CAST(text AS BLOB)), sent_at, 'queued', 1, 0, :expires_at "
            f"FROM {source}.messages WHERE delivered = 0 AND id > :after ORDER BY id",
            {"expires_at": self.now + self.lifetime, "after": after},
        )


def _columns(db: sqlite3.Connection, source: str, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA {source}.table_info({table})")}
