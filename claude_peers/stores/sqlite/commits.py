"""One connection on one thread, and one commit for everything that waits.

Theory of operation: callers on the event loop submit pieces of work. The thread takes all that
wait, begins a transaction, runs each piece under a savepoint of its own, commits, and only then
resolves the callers, all at once. So a burst shares one fsync, a piece that fails rolls back
alone, and a failed commit fails all of them. Nothing is ever reported before it is durable.

Every transaction first reads the leadership row: a process that has been succeeded (it was
stopped, its lock file was deleted) cannot write any more, whatever it believes. It cannot either
once its file is not the one others would open, or once the disk has failed: what the kernel has in
memory may then differ from what is on the disk, and only who opens the file anew reads the latter.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from claude_peers.core.delivery import given_up
from claude_peers.core.errors import ClaudePeersError, FencedError, StoreError
from claude_peers.stores.sqlite import rescue
from claude_peers.stores.sqlite.schema import migrate, recognise

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Piece = Callable[[sqlite3.Connection], Any]
BUSY = 3.0
"""Seconds to wait for another program that has locked the database."""
MOST = 512
"""Pieces of work in one transaction."""


@dataclass(slots=True)
class _Work:
    piece: Piece
    writes: bool
    future: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None


class Commits:
    """Runs pieces of work on the database's own thread.

    Attributes:
        epoch: the epoch this process leads in; 0 before it has taken office.
        fenced: called on the event loop, with why, when this process must not write any more.
    """

    def __init__(self, path: str, *, prepare: Piece) -> None:
        self._path = path
        self._prepare = prepare
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._opened: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._closed = False
        self.epoch = 0
        self.fenced: Callable[[str], None] = lambda _why: None
        self._file: tuple[int, int] | None = None

    async def __aenter__(self) -> Self:
        """Open the database and bring it to this version's schema."""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._thread.start()
        try:
            await self._opened
        except BaseException:  # a caller that gives up meanwhile must not leave the file open
            self._waiting.put(None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Finish what waits, then close."""
        self._closed = True
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(
        self, piece: Callable[[sqlite3.Connection], Result], *, writes: bool = True
    ) -> "asyncio.Future[Result]":
        """Queue a piece of work; the future resolves once it is durable."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(FencedError())
        else:
            self._waiting.put(_Work(piece, writes, future))
        return future

    def _run(self) -> None:
        try:
            db = self._open()
        except Exception as error:  # noqa: BLE001 - every waiting caller gets it, translated
            self._tell(_settle, self._opened, None, translate(error))
            return
        self._tell(_settle, self._opened, None, None)
        with contextlib.closing(db):
            while (work := self._waiting.get()) is not None:
                batch = [work]
                with contextlib.suppress(queue.Empty):
                    while len(batch) < MOST and (more := self._waiting.get_nowait()) is not None:
                        batch.append(more)
                    if len(batch) < MOST:
                        self._waiting.put(None)
                self._commit(db, batch)
                self._tell(_settle_all, batch)

    def _open(self) -> sqlite3.Connection:
        # uri: so that ATTACH may say mode=ro, whatever this SQLite was built with.
        db = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, uri=True)
        try:
            recognise(db)  # before anything is written
            db.create_function("given_up", 1, given_up, deterministic=True)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")  # not every build does so by itself
            db.execute("PRAGMA cache_size = -2048")
            migrate(db)
            self._prepare(db)
            self._file = rescue.identity(self._path)
        except BaseException:
            db.close()
            raise
        return db

    def _commit(self, db: sqlite3.Connection, batch: list[_Work]) -> None:
        try:
            db.execute("BEGIN IMMEDIATE" if any(work.writes for work in batch) else "BEGIN")
            self._check_office(db)
            for work in batch:
                _run_piece(db, work)
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - every waiting caller gets it, translated
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            log.warning("a commit failed: %s", error)
            if _of_the_disk(error):
                self._tell(self.fenced, f"the disk failed: {error}")
            for work in batch:
                work.error = translate(error)

    def _check_office(self, db: sqlite3.Connection) -> None:
        if self.epoch:
            (epoch,) = db.execute("SELECT epoch FROM leadership").fetchone()
            if epoch != self.epoch:
                self._tell(self.fenced, "succeeded by another process")
                raise FencedError
            # Asked for each commit: it takes two microseconds, and what is accepted into a file
            # without a name is gone with this process.
            if rescue.identity(self._path) != self._file:
                self._tell(self.fenced, rescue.save(db, self._path))
                raise FencedError

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        # A loop that has ended has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


def _of_the_disk(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, sqlite3.Error) and code & 0xFF == sqlite3.SQLITE_IOERR


def _run_piece(db: sqlite3.Connection, work: _Work) -> None:
    db.execute("SAVEPOINT piece")
    try:
        work.result = work.piece(db)
    except sqlite3.OperationalError:
        raise  # the disk is full or fails: SQLite may have given up the whole transaction
    except Exception as error:  # noqa: BLE001 - its caller gets it; the others go on
        work.error = translate(error)
        db.execute("ROLLBACK TO piece")
    db.execute("RELEASE piece")


def _settle_all(batch: list[_Work]) -> None:
    for work in batch:
        _settle(work.future, work.result, work.error)


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():  # its caller was cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def translate(error: Exception) -> Exception:
    """Return a database error as one that says what to do."""
    if isinstance(error, ClaudePeersError) or not isinstance(error, (sqlite3.Error, OSError)):
        return error
    text = str(error)
    if "locked" in text or "busy" in text:
        remedy = "Another program holds the database; close it, then try again."
    elif "full" in text:
        remedy = "Free some space on its disk, then try again."
    elif "readonly" in text or "unable to open" in text:
        remedy = "Make its folder writable for you, or choose another with CLAUDE_PEERS_DB."
    elif "not a database" in text or "malformed" in text:
        remedy = "Run `claude-peers salvage`, or choose another with CLAUDE_PEERS_DB."
    else:
        remedy = "Look at the disk and at the log, then try again."
    return StoreError(f"The database failed: {text}", remedy, retry_after=1.0)
