"""The Store port on one SQLite file."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import DELIVERIES, Event
from claude_peers.core.errors import MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.machines import Machine
from claude_peers.core.models import (
    Draft,
    Ledger,
    Message,
    Peer,
    PeerId,
    Process,
    Receipt,
    Retained,
    State,
    Story,
)
from claude_peers.core.wills import Will
from claude_peers.stores.sqlite import endings, machines, mail, rows, topics, wills
from claude_peers.stores.sqlite.adopt import Adoption
from claude_peers.stores.sqlite.commits import Commits, Result
from claude_peers.stores.sqlite.webhooks import SqliteWebhooks


class SqliteStore(SqliteWebhooks):
    """Peers and mail in one file; an async context manager that opens and closes it.

    Args:
        path: the database file.
        adoption: which upstream databases to take over from, if any.
        deliveries: see `broker.ports.Store`.
    """

    name = "sqlite"

    def __init__(
        self, path: str, adoption: Adoption | None = None, *, deliveries: int = DELIVERIES
    ) -> None:
        self.deliveries = deliveries
        self.commits = Commits(path, prepare=adoption or (lambda _db: None))

    async def __aenter__(self) -> Self:
        """Open the file."""
        await self.commits.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the file, after what waits has been committed."""
        await self.commits.__aexit__(kind, error, at)

    async def take_office(self, leader: Process, *, now: float) -> int:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> int:
            (epoch,) = db.execute(
                "UPDATE leadership SET epoch = epoch + 1, pid = :pid, started = :started "
                "RETURNING epoch",
                {"pid": leader.pid, "started": leader.started},
            ).fetchone()
            mail.end_leases(db, now)
            return int(epoch)

        # Only now: an epoch whose commit failed was never ours.
        self.commits.epoch = await self.commits.submit(work)
        return self.commits.epoch

    async def peers(self) -> list[Peer]:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> list[Peer]:
            found = db.execute(f"SELECT {rows.PEER} FROM peer ORDER BY seq")
            return [rows.to_peer(row) for row in found]

        return await self._read(work)

    async def save_peer(self, peer: Peer) -> None:
        """See `broker.ports.Store`."""
        row = rows.peer_row(peer)
        await self.commits.submit(lambda db: _done(db.execute(rows.SAVE_PEER, row)))

    async def forget_peers(self, ids: Iterable[PeerId]) -> None:
        """See `broker.ports.Store`."""
        listed = json.dumps(list(ids))
        await self.commits.submit(
            lambda db: _done(
                db.execute(
                    "DELETE FROM peer WHERE id IN (SELECT value FROM json_each(?))", [listed]
                )
            )
        )

    async def machines(self) -> list[Machine]:
        """See `broker.ports.Store`."""
        return await self._read(machines.machines)

    async def save_machine(self, machine: Machine) -> None:
        """See `broker.ports.Store`."""
        await self.commits.submit(lambda db: machines.save(db, machine))

    async def subscriptions(self) -> list[tuple[PeerId, str]]:
        """See `broker.ports.Store`."""
        return await self._read(topics.subscriptions)

    async def retained(self) -> list[Retained]:
        """See `broker.ports.Store`."""
        return await self._read(topics.retained)

    async def subscribe(
        self,
        subscription: tuple[PeerId, str],
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        return await self.commits.submit(
            lambda db: topics.subscribe(db, subscription, drafts, limits, now=now)
        )

    async def unsubscribe(self, subscription: tuple[PeerId, str]) -> None:
        """See `broker.ports.Store`."""
        await self.commits.submit(lambda db: topics.unsubscribe(db, subscription))

    async def publish(
        self,
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
        keep: Retained | None = None,
        key: str | None = None,
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        return await self.commits.submit(
            lambda db: topics.publish(db, drafts, limits, now=now, keep=keep, key=key)
        )

    async def kept(self, value: Retained, key: str, *, now: float) -> bool:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: topics.kept(db, value, key, now=now))

    async def wills(self) -> list[Will]:
        """See `broker.ports.Store`."""
        return await self._read(wills.wills)

    async def save_will(self, will: Will) -> None:
        """See `broker.ports.Store`."""
        await self.commits.submit(lambda db: wills.save(db, will))

    async def drop_will(self, peer_id: PeerId) -> None:
        """See `broker.ports.Store`."""
        await self.commits.submit(lambda db: wills.drop(db, peer_id))

    async def publish_will(
        self,
        will: Will,
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
        keep: Retained | None,
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        return await self.commits.submit(
            lambda db: wills.publish(db, will, drafts, limits, now=now, keep=keep)
        )

    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: mail.accept(db, draft, limits, now))

    async def accepted(self, draft: Draft, *, now: float) -> Message | None:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: mail.earlier(db, draft, now))

    async def unread(self, owner: PeerId, *, after: int = 0, limit: int = 0) -> list[Message]:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: mail.page(db, owner, after, limit))

    async def move(
        self, owner: PeerId, ids: Iterable[int], event: Event, *, now: float, via: str = ""
    ) -> list[int]:
        """See `broker.ports.Store`."""
        listed = list(ids)

        def work(db: sqlite3.Connection) -> list[int]:
            if event is Event.PUSH:
                endings.give_up(db, owner, most=self.deliveries, now=now, ids=listed)
            return mail.move(db, owner, listed, event, now=now, via=via)

        return await self.commits.submit(work)

    async def hand_out(self, owner: PeerId, claim: Claim, *, now: float) -> list[Message]:
        """See `broker.ports.Store`."""
        # Most polls find nothing and settle nothing: a commit without a change writes no page.
        return await self.commits.submit(
            lambda db: mail.hand_out(db, owner, claim, most=self.deliveries, now=now)
        )

    async def admit(self, owner: PeerId, sender: str, *, now: float) -> list[Message]:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: mail.admit(db, owner, sender, now))

    async def readdress(self, old: PeerId, new: PeerId, name: str, *, now: float) -> int:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: mail.readdress(db, old, new, name, now))

    async def tidy(self, *, now: float, most: int) -> int:
        """See `broker.ports.Store`."""
        return await self.commits.submit(lambda db: endings.tidy(db, now, most))

    async def mailbox(self, owner: PeerId) -> Mailbox:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: mail.mailbox(db, owner))

    async def message(self, message_id: int) -> Message | None:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: mail.message(db, message_id))

    async def stories(self, ids: Iterable[int]) -> list[Story]:
        """See `broker.ports.Store`."""
        listed = list(ids)
        return await self._read(lambda db: mail.stories(db, listed))

    async def dead_letters(self, owner: PeerId | None = None, *, limit: int) -> list[Message]:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: mail.dead_letters(db, owner, limit))

    async def owed(
        self, *, now: float | None = None, by: PeerId | None = None, limit: int
    ) -> list[Message]:
        """See `broker.ports.Store`."""
        return await self._read(lambda db: mail.owed(db, now, by, limit))

    async def history(
        self, *, after: int = 0, before: int = 0, limit: int, newest: bool = False
    ) -> list[Message]:
        """See `broker.ports.Store`."""
        return await self._read(
            lambda db: mail.history(db, after, before, limit=limit, newest=newest)
        )

    async def ledger(self) -> Ledger:
        """See `broker.ports.Store`."""

        def work(db: sqlite3.Connection) -> Ledger:
            tally = dict(db.execute("SELECT name, n FROM tally").fetchall())
            accepted, purged = tally.pop("accepted", 0), tally.pop("purged", 0)
            states = {State(name): n for name, n in tally.items() if n}
            return Ledger(accepted=accepted, purged=purged, states=states)

        return await self._read(work)

    async def _read(self, piece: Callable[[sqlite3.Connection], Result]) -> Result:
        return await self.commits.submit(piece, writes=False)


def _done(_cursor: sqlite3.Cursor) -> None:
    return None
