"""Taking over peers and unread mail of an upstream database, and leaving it as it was.

Upstream keeps `peers` and `messages` in the very file we use; agentmesh 0.4 has its own. Both are
read up to a watermark, so that going back to upstream and forth again takes each message once.
Forks have more columns or fewer: only those that are there are read. A source that cannot be read
is left for the next time: nobody's old mail is worth having no broker.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claude_peers.core.models import Peer, PeerId, Presence, Process, Trust
from claude_peers.stores.sqlite import rows
from claude_peers.stores.sqlite.schema import transaction

log = logging.getLogger(__name__)

OURS = "main"
ELSEWHERE = "elsewhere"
_PEER = "id, pid, cwd, git_root, tty, summary, registered_at, last_seen, hostname"
_MESSAGE = {"id", "from_id", "to_id", "text", "sent_at", "delivered"}
"""What upstream's messages have at least."""


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
        with _tolerance(OURS):
            self._adopt(db, OURS)
        if self.elsewhere is not None:
            with _tolerance(self.elsewhere), _attached(db, self.elsewhere):
                self._adopt(db, ELSEWHERE)

    def _adopt(self, db: sqlite3.Connection, source: str) -> None:
        if not _columns(db, source, "messages") >= _MESSAGE:
            return
        row = db.execute("SELECT upto FROM adopted WHERE source = ?", [source]).fetchone()
        (last,) = db.execute(f"SELECT coalesce(max(id), 0) FROM {source}.messages").fetchone()
        peers = self._new_peers(db, source)
        after = row[0] if row else 0
        if row is not None and last <= after:
            # Who came to upstream and got no mail is worth a row only while it runs.
            peers = [peer for peer in peers if peer.process is not None]
            if not peers:
                return
        with transaction(db):
            for peer in peers:
                db.execute(rows.SAVE_PEER, rows.peer_row(peer))
            self._adopt_mail(db, source, after=after)
            db.execute("INSERT OR REPLACE INTO adopted VALUES (?, ?)", [source, last])

    def _new_peers(self, db: sqlite3.Connection, source: str) -> list[Peer]:
        there = _columns(db, source, "peers")
        if "id" not in there:
            return []
        names = [name if name in there else f"NULL AS {name}" for name in _PEER.split(", ")]
        found = db.execute(
            f"SELECT {', '.join(names)} FROM {source}.peers "
            "WHERE id NOT IN (SELECT id FROM peer) ORDER BY rowid"
        )
        return [self._peer(row) for row in found.fetchall()]

    def _peer(self, row: tuple[str | int | None, ...]) -> Peer:
        peer_id, pid, cwd, root, tty, summary, registered, seen, hostname = row
        # agentmesh says localhost for its own machine; a pid of another machine says nothing here.
        host = self.host if hostname in (None, "", "localhost") else str(hostname)
        local = isinstance(pid, int) and host == self.host
        process = self.identify(pid) if isinstance(pid, int) and local else None
        dead = local and process is None
        return Peer(
            id=PeerId(str(peer_id)),
            name=str(peer_id),
            pid=pid if isinstance(pid, int) else None,
            process=process,
            boot=self.boot,
            host=host,
            cwd=str(cwd or ""),
            git_root=None if root is None else str(root),
            tty=None if tty is None else str(tty),
            summary=str(summary or ""),
            trust=Trust.OPEN if process is None else Trust.PROCESS,
            presence=Presence.AWAY if dead else Presence.PRESENT,
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


@contextlib.contextmanager
def _tolerance(source: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        log.warning("nothing was taken over from %s: %s", source, error)


@contextlib.contextmanager
def _attached(db: sqlite3.Connection, path: str) -> Iterator[None]:
    from pathlib import Path  # not loaded where there is nothing to attach

    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    db.execute(f"ATTACH DATABASE ? AS {ELSEWHERE}", [uri])
    try:
        yield
    finally:
        db.execute(f"DETACH DATABASE {ELSEWHERE}")


def _columns(db: sqlite3.Connection, source: str, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA {source}.table_info({table})")}
