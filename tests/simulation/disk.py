"""The durable state that all nodes of a simulation share, and one leader's way to it.

A modelled `stores.sqlite`: the promises of its `commits` (one thread, one commit for all that
wait, the epoch checked in each transaction, nothing told before it is durable) around the store in
memory, which survives every process. Commits take time, fail, and are followed by a while in
which the process may die before it has told anybody.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Self

from simulation.world import Process, World

from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import Event
from claude_peers.core.errors import ClaudePeersError, FencedError, StoreError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, Message, Peer, PeerId, Receipt
from claude_peers.core.models import Process as Leader
from claude_peers.stores.memory import MemoryStore

Piece = Callable[[], Any]


class Disk:
    """What is durable.

    Attributes:
        fails: how many of the next commits fail.
        epoch: the highest epoch in which anybody has taken office.
        writers: who has written, by the epoch it believed to lead in.
        open: the processes that have the database open.
        lock_deleted: whether two of them may, for once.
        failed_at: when a commit failed last.
        told: called with each message that became durable.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = MemoryStore()
        self.fails = 0
        self.failed_at = -1.0
        self.epoch = 0
        self.writers: dict[int, int] = {}
        self.open: list[Process] = []
        self.lock_deleted = False
        self.told: Callable[[Draft, Receipt], None] = lambda _draft, _receipt: None
        self.took_office = 0

    def entered(self, process: Process) -> None:
        """Note that a process has opened the database."""
        self.open.append(process)
        if len(self.open) > 1 and not self.lock_deleted:
            pids = [each.pid for each in self.open]
            self.world.violated(f"two processes have the database open: {pids}")

    def left(self, process: Process) -> None:
        """Note that it is closed, or its process dead."""
        if process in self.open:
            self.open.remove(process)

    def wrote(self, process: Process, epoch: int) -> None:
        """Check that whoever wrote was the one who may."""
        if epoch < self.epoch:
            self.world.violated(f"{process.pid} wrote in epoch {epoch}, after {self.epoch} began")
        if self.writers.setdefault(epoch, process.pid) != process.pid:
            self.world.violated(f"two leaders wrote in epoch {epoch}")
        ledger = done(self.store.ledger())
        if not ledger.balanced:
            self.world.violated(f"the ledger does not balance: {ledger}")


class Database:
    """The Store port, as one leader has it."""

    def __init__(self, process: Process) -> None:
        self.commits = SimpleNamespace(fenced=lambda: None)
        self._process = process
        self._disk: Disk = process.world.disk
        self.deliveries = self._disk.store.deliveries
        self._world = process.world
        self._thread = process.thread()
        self._waiting: list[tuple[Piece, bool, asyncio.Future[Any]]] = []
        self._busy = False
        self._closed = False
        self._epoch = 0
        self._drained = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        await asyncio.sleep(self._world.rng.uniform(0.001, 0.01))
        self._disk.entered(self._process)
        self._process.closers.append(self._die)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._busy or self._waiting:
            await asyncio.shield(self._drained)
        self._disk.left(self._process)
        self._thread.end()

    def _die(self) -> None:
        self._disk.left(self._process)

    # The thread

    def _submit(self, piece: Piece, *, writes: bool = True) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(FencedError())
            return future
        self._waiting.append((piece, writes, future))
        self._go_on()
        return future

    def _go_on(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            self._later(self._begin)
        elif self._closed and not self._busy and not self._drained.done():
            self._drained.set_result(None)

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        slow = self._world.rng.choice((0.0001, 0.002, 0.02))
        context = self._thread.context
        self._world.loop.call_later(slow, call, *arguments, context=context)

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        if self._world.mutation == "told before durable" and self._epoch:
            _settle_early(self._disk, self._process, batch)
        self._later(self._commit, batch)

    def _commit(self, batch: list[tuple[Piece, bool, "asyncio.Future[Any]"]]) -> None:
        disk = self._disk
        self._finish(batch, self._error())
        disk.fails = max(0, disk.fails - 1)

    def _error(self) -> ClaudePeersError | None:
        fenced = self._epoch and self._epoch != self._disk.epoch
        if fenced and self._world.mutation != "no fencing":
            self._world.note(self._process.pid, f"fenced in epoch {self._epoch}")
            self._process.soon(self.commits.fenced, "succeeded by another process")
            return FencedError()
        if self._disk.fails:
            self._world.note(self._process.pid, "a commit fails")
            self._disk.failed_at = self._world.loop.now
            return StoreError("The database failed: disk full", "Free some.", retry_after=1.0)
        return None

    def _finish(self, batch: Any, error: ClaudePeersError | None) -> None:
        results = []
        for piece, _, future in batch:
            result, failure = (None, error) if error else _attempt(piece)
            results.append((future, result, failure))
        if error is None and any(writes for _, writes, _ in batch) and self._epoch:
            self._disk.wrote(self._process, self._epoch)
        if self._world.mutation == "no dedupe":
            self._disk.store._keys.clear()
        self._later(self._tell, results)

    def _tell(self, results: list[tuple["asyncio.Future[Any]", Any, Exception | None]]) -> None:
        self._busy = False
        self._process.soon(_settle, results)
        self._process.soon(self._go_on)

    # The port

    async def take_office(self, leader: Leader, *, now: float) -> int:
        disk = self._disk

        def work() -> int:
            if self._world.mutation == "leases survive":
                disk.store._epoch += 1
                epoch = disk.store._epoch
            else:
                epoch = done(disk.store.take_office(leader, now=now))
            if epoch <= disk.epoch:
                self._world.violated(f"epoch {epoch} after {disk.epoch}")
            disk.epoch, disk.took_office = epoch, disk.took_office + 1
            self._epoch = epoch
            self._world.note(self._process.pid, f"leads in epoch {epoch}")
            return epoch

        return await self._submit(work)

    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        def work() -> Receipt:
            receipt = done(self._disk.store.accept(draft, limits, now=now))
            if not receipt.duplicate:
                self._disk.told(draft, receipt)
            return receipt

        return await self._submit(work)

    async def peers(self) -> list[Peer]:
        return await self._read(lambda store: store.peers())

    async def save_peer(self, peer: Peer) -> None:
        await self._write(lambda store: store.save_peer(peer))

    async def forget_peers(self, ids: Iterable[PeerId]) -> None:
        listed = list(ids)
        await self._write(lambda store: store.forget_peers(listed))

    async def accepted(self, draft: Draft, *, now: float) -> Message | None:
        return await self._read(lambda store: store.accepted(draft, now=now))

    async def unread(self, owner: PeerId, *, after: int = 0, limit: int = 0) -> list[Message]:
        return await self._read(lambda store: store.unread(owner, after=after, limit=limit))

    async def move(
        self, owner: PeerId, ids: Iterable[int], event: Event, *, now: float, via: str = ""
    ) -> list[int]:
        listed = list(ids)
        return await self._write(lambda store: store.move(owner, listed, event, now=now, via=via))

    async def hand_out(self, owner: PeerId, claim: Claim, *, now: float) -> list[Message]:
        return await self._write(lambda store: store.hand_out(owner, claim, now=now))

    async def admit(self, owner: PeerId, sender: str, *, now: float) -> list[Message]:
        return await self._write(lambda store: store.admit(owner, sender, now=now))

    async def readdress(self, old: PeerId, new: PeerId, name: str, *, now: float) -> int:
        return await self._write(lambda store: store.readdress(old, new, name, now=now))

    async def tidy(self, *, now: float, most: int) -> int:
        return await self._write(lambda store: store.tidy(now=now, most=most))

    async def message(self, message_id: int) -> Message | None:
        return await self._read(lambda store: store.message(message_id))

    async def owed(
        self, *, now: float | None = None, by: PeerId | None = None, limit: int
    ) -> list[Message]:
        return await self._read(lambda store: store.owed(now=now, by=by, limit=limit))

    async def machines(self) -> list[Any]:
        return await self._read(lambda store: store.machines())

    async def wills(self) -> list[Any]:
        return await self._read(lambda store: store.wills())

    async def webhooks(self) -> list[Any]:
        return await self._read(lambda store: store.webhooks())

    async def hook_tokens(self) -> list[Any]:
        return await self._read(lambda store: store.hook_tokens())

    async def subscriptions(self) -> list[Any]:
        return await self._read(lambda store: store.subscriptions())

    async def retained(self) -> list[Any]:
        return await self._read(lambda store: store.retained())

    async def ledger(self) -> Any:
        return await self._read(lambda store: store.ledger())

    def _read(self, work: Callable[[MemoryStore], Any]) -> "asyncio.Future[Any]":
        return self._submit(lambda: done(work(self._disk.store)), writes=False)

    def _write(self, work: Callable[[MemoryStore], Any]) -> "asyncio.Future[Any]":
        return self._submit(lambda: done(work(self._disk.store)))


def done(work: Any) -> Any:
    """Return the result of a coroutine of the store in memory, which never waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value
    raise RuntimeError("the store in memory has waited")


def _attempt(piece: Piece) -> tuple[Any, Exception | None]:
    try:
        return piece(), None
    except ClaudePeersError as error:
        return None, error


def _settle_early(disk: Disk, process: Process, batch: list[Any]) -> None:
    """Tell what would become of a batch, by trying it on a copy: what no store may do."""
    kept, told = disk.store, disk.told
    disk.store, disk.told = copy.deepcopy(kept), lambda _draft, _receipt: None
    results = [(future, *_attempt(piece)) for piece, _, future in batch]
    disk.store, disk.told = kept, told
    process.soon(_settle, results)


def _settle(results: list[tuple["asyncio.Future[Any]", Any, Exception | None]]) -> None:
    for future, result, error in results:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
