"""A broker whose clock, machine, callers and connections are a test's own."""

import asyncio
from dataclasses import dataclass, field

from claude_peers.broker.broker import Broker
from claude_peers.broker.context import Options
from claude_peers.broker.ports import Here
from claude_peers.broker.registration import Registration
from claude_peers.core.errors import StoreError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, Message, PeerId, Process, Receipt
from claude_peers.stores.memory import MemoryStore
from claude_peers.wire.records import PollRequest, RegisterRequest, SendMessageRequest

LEADER = Process(pid=1, started="boot")
NO_LIMITS = Limits(per_minute=0, mailbox=0)
NOON = 1_700_000_000.0
"""Where a test's wall clock begins."""


class Clock:
    """The Clock port; time passes when a test says so."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.stepped = 0.0

    def wall(self) -> float:
        return NOON + self.passed + self.stepped

    def monotonic(self) -> float:
        return self.passed


@dataclass
class Machine:
    """Which processes run, by pid, and what the machine is called."""

    running: dict[int, str] = field(default_factory=dict)
    boot: str = "this-boot"
    host: str = "here"

    def start(self, pid: int, started: str = "morning") -> Process:
        self.running[pid] = started
        return Process(pid=pid, started=started)

    def end(self, pid: int) -> None:
        del self.running[pid]

    def identify(self, pid: int) -> Process | None:
        started = self.running.get(pid)
        return None if started is None else Process(pid=pid, started=started)

    def alive(self, process: Process) -> bool:
        return self.running.get(process.pid) == process.started

    def here(self) -> Here:
        return Here(host=self.host, boot=self.boot, identify=self.identify, alive=self.alive)


@dataclass
class Caller:
    """The Caller protocol; it owns the sockets of `processes`."""

    token_hash: str | None = None
    knows_secret: bool = False
    source: str = "somebody"
    processes: tuple[Process, ...] = ()
    answer: str = "the right answer"
    traceable: bool = False
    machine: str = ""
    elsewhere: bool = False  # the user of another machine

    def is_user_of(self, machine: str) -> bool:
        return (self.knows_secret or self.elsewhere) and machine == self.machine

    def owns(self, process: Process) -> bool:
        return process in self.processes

    def proves(self, answer: str) -> bool:
        return answer == self.answer


class Transport:
    """The Transport port; reaches whom a test links."""

    def __init__(self) -> None:
        self.linked: set[str] = set()
        self.delivered: list[Message] = []
        self.dismissed: list[PeerId] = []
        self.read: list[tuple[PeerId, list[int]]] = []
        self.looked: list[PeerId] = []

    def reaches(self, peer_id: PeerId) -> bool:
        return peer_id in self.linked

    def deliver(self, message: Message) -> None:
        self.delivered.append(message)

    def dismiss(self, peer_id: PeerId) -> None:
        self.dismissed.append(peer_id)

    def look_again(self, peer_id: PeerId) -> None:
        self.looked.append(peer_id)

    def settled(self, peer_id: PeerId, ids: list[int]) -> None:
        self.read.append((peer_id, ids))


class FlakyStore(MemoryStore):
    """A store whose methods named in `broken` fail, as on a full disk."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.calls: list[str] = []

    def _note(self, method: str) -> None:
        self.calls.append(method)
        if method in self.broken:
            raise StoreError("The database failed: full", "Free some space.")

    async def save_peer(self, peer):
        self._note("save_peer")
        await super().save_peer(peer)

    async def save_machine(self, machine):
        self._note("save_machine")
        await super().save_machine(machine)

    async def forget_peers(self, ids):
        self._note("forget_peers")
        await super().forget_peers(ids)

    async def unread(self, owner, *, after=0, limit=0):
        self._note("unread")
        return await super().unread(owner, after=after, limit=limit)

    async def move(self, owner, ids, event, *, now, via=""):
        self._note("move")
        return await super().move(owner, ids, event, now=now, via=via)

    async def hand_out(self, owner, claim, *, now):
        self._note("hand_out")
        return await super().hand_out(owner, claim, now=now)


@dataclass
class Rig:
    """A broker in office and all it stands on."""

    broker: Broker
    store: FlakyStore
    clock: Clock
    machine: Machine
    transport: Transport

    async def join(self, caller: Caller | None = None, **fields) -> Registration:
        """Register a peer; without a caller, anybody on this machine."""
        return await self.broker.peers.register(caller or Caller(), RegisterRequest(**fields))

    async def joins_as_process(self, pid: int, **fields) -> tuple[PeerId, Caller]:
        """Register a process that owns its socket; return its id and it as a caller."""
        caller = Caller(processes=(self.machine.start(pid),))
        joined = await self.join(caller, pid=pid, **fields)
        return joined.peer.id, caller

    async def send(self, to_id: str, text: str = "hi", caller=None, **fields) -> Receipt:
        request = SendMessageRequest(to_id=to_id, text=text, **{"from_id": "cli", **fields})
        return (await self.broker.mail.send(caller or Caller(), request)).receipt

    async def poll(self, peer_id: str, caller=None, *, whole: bool | None = True, **fields):
        """Poll; `whole` says what becomes of the answer, None that nobody knows yet."""
        request = PollRequest(id=peer_id, **fields)
        messages, handout = await self.broker.mail.poll(caller or Caller(), request)
        if whole is not None:
            self.broker.mail.handed_over(handout, whole=whole)
            await self.settled()
        return [message.id for message in messages]

    async def unread(self, peer_id: str) -> list[int]:
        return [message.id for message in await self.store.unread(PeerId(peer_id))]

    async def states(self, *ids: int) -> list[str]:
        return [(await self.store.message(each)).state.value for each in ids]

    async def settled(self) -> None:
        """Wait until nothing runs in the background."""
        while waiting := list(self.broker._context._background):
            await asyncio.wait(waiting)


async def make_broker(
    store=None, *, limits: Limits = NO_LIMITS, require_token=False, share=False, **more
) -> Rig:
    """Return a broker that has taken office on `store`, by default on an empty one in memory."""
    store = FlakyStore() if store is None else store
    clock, machine, transport = Clock(), Machine(), Transport()
    options = Options(limits=limits, require_token=require_token, share=share, **more)
    broker = Broker(store, transport, clock=clock, here=machine.here(), options=options)
    await broker.open(LEADER)
    return Rig(broker, store, clock, machine, transport)


def draft(text: str = "hi", *, to: str = "bob", sender: str = "ann", **fields) -> Draft:
    """Return a message that is about to be accepted."""
    given = {"sent_at": "2026-11-24T12:00:00.000Z", "expires_at": 1000.0, **fields}
    return Draft(from_id=sender, to_id=PeerId(to), text=text, **given)
