"""The broker against a model, on both stores: nothing lost, nothing twice unannounced, in order.

The model knows every message's state. Each step does something to the broker and to the model;
after each step the ledger, every mailbox and every hand-out must be what the model says.
"""

import asyncio
import dataclasses
import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.brokers import Caller, make_broker

from claude_peers.broker import broker as broker_module
from claude_peers.broker.leases import ACK_WITHIN
from claude_peers.core.delivery import DIRECT_TTL, TRANSITIONS, Event
from claude_peers.core.limits import HOPS
from claude_peers.core.models import UNREAD, PeerId, State
from claude_peers.stores.memory import MemoryStore
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ
from claude_peers.stores.sqlite.store import SqliteStore
from claude_peers.wire.records import PollRequest

PEERS = 3
DELIVERIES = 3
"""Hand-outs of one message: few, so that they come to their end."""
NUMBERS = st.lists(st.integers(0, 5), max_size=3)


@dataclass
class Mail:
    """What the model knows of a message."""

    number: int
    to_id: str
    from_id: str
    text: str
    sent: float
    key: str
    reply_to: int | None
    to_name: str | None = None
    hops: int = 0
    state: State = State.QUEUED
    handed: int = 0
    ended: float = 0.0
    moved: bool = False


@dataclass
class Handed:
    """A hand-out that is not settled: legacy ones have no deadline."""

    owner: str
    numbers: set[int]
    deadline: float | None
    written: bool


@dataclass
class Model:
    """What should be true."""

    now: float = 0.0
    stepped: float = 0.0
    latest: float = 0.0
    mail: dict[int, Mail] = field(default_factory=dict)
    last: int = 0
    purged: int = 0
    handed: list[Handed] = field(default_factory=list)
    muted: set[tuple[str, str]] = field(default_factory=set)
    resent: dict[int, int] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        """The wall clock, which may step; messages live by it."""
        return self.now + self.stepped

    def fresh(self, mail: Mail) -> bool:
        """Whether its key is known, whatever the clock has done since."""
        self.latest = max(self.latest, self.wall)
        return mail.sent > self.latest - DEDUPE_WINDOW

    def move(self, number: int, event: Event) -> bool:
        mail = self.mail.get(number)
        to = mail and TRANSITIONS.get((mail.state, event))
        if not mail or to is None:
            return False
        mail.state = to
        mail.handed += event in (Event.LEASE, Event.PUSH)
        if to not in UNREAD:
            mail.ended = self.wall
        return True

    def move_own(self, owner: str, numbers, event: Event) -> list[int]:
        own = [n for n in sorted(set(numbers)) if n in self.mail and self.mail[n].to_id == owner]
        return [number for number in own if self.move(number, event)]

    def offered(self, owner: str) -> list[int]:
        offered = (State.QUEUED, State.PUSHED)
        return [m.number for m in self.mail.values() if m.to_id == owner and m.state in offered]

    def close(self, which, event: Event) -> None:
        """End the hand-outs for which `which` is true, with `event` for their messages."""
        for handed in [each for each in self.handed if which(each)]:
            self.handed.remove(handed)
            self.move_own(handed.owner, handed.numbers, event)

    def give_up(self, owner: str, numbers) -> None:
        for number in self.offered(owner):
            if number in numbers and self.mail[number].handed >= DELIVERIES:
                self.move(number, Event.GIVE_UP)

    def readdress(self, old: str, new: str, name: str) -> None:
        for mail in self.mail.values():
            if (mail.to_id, mail.to_name) == (old, name) and mail.state in UNREAD:
                mail.to_id, mail.state, mail.moved = new, State.QUEUED, True

    def settle(self, owner: str, numbers: list[int], event: Event) -> list[int]:
        if event is Event.PUSH:
            self.give_up(owner, numbers)
        moved = self.move_own(owner, numbers, event)
        for handed in self.handed:
            if handed.owner == owner:
                handed.numbers.difference_update(moved)
        return moved

    def tidy(self) -> None:
        self.close(
            lambda each: each.deadline is not None and each.deadline <= self.now, Event.RETURN
        )
        for mail in list(self.mail.values()):
            if mail.state in UNREAD and mail.sent + DIRECT_TTL <= self.wall:
                self.move(mail.number, Event.EXPIRE)
            keep = KEEP_DEAD if mail.state is State.DEAD else KEEP_READ
            if mail.state not in UNREAD and mail.ended <= self.wall - keep:
                del self.mail[mail.number]
                self.purged += 1


class Mesh(RuleBasedStateMachine):
    """Drives a broker; subclasses say on which store."""

    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.joined: dict[str, Caller] = {}
        self.names: dict[str, str] = {}  # also of who is gone
        self.texts = 0
        self.pids = itertools.count(100)
        self.store = None

    async def opened(self):
        raise NotImplementedError

    def run(self, work):
        """Run something to its end, and what it started in the background as well."""

        async def whole():
            result = await work
            await self.rig.settled()
            return result

        return self.runner.run(whole())

    async def _begin(self) -> None:
        self.store = await self.opened()
        self.rig = await make_broker(self.store)

    @initialize()
    def begin(self) -> None:
        self.runner.run(self._begin())

    def teardown(self) -> None:
        if self.store is not None:
            self.runner.run(self.store.__aexit__(None, None, None))
        self.runner.close()

    # Peers

    @precondition(lambda self: len(self.joined) < PEERS)
    @rule(target=peers)
    def register(self):
        return self._enter(f"peer-{len(self.names)}")

    def _enter(self, name: str):
        peer_id, caller = self.run(self.rig.joins_as_process(next(self.pids), name=name))
        self.joined[peer_id], self.names[peer_id] = caller, name
        return peer_id

    @rule(target=peers, old=consumes(peers))
    def is_succeeded(self, old):
        """Let a peer leave, and another take its name, and the mail that was sent to that."""
        self.run(self.rig.broker.peers.unregister(self.joined.pop(old), old))
        name = self.names[old]
        new = self._enter(name)
        for gone in [each for each in self.names if each not in self.joined]:
            if self.names[gone] == name:
                self.model.readdress(gone, new, name)
        return new

    @rule(peer_id=peers)
    def rename(self, peer_id) -> None:
        self.texts += 1
        name = f"renamed-{self.texts}"
        self.run(self.rig.broker.peers.rename(self.joined[peer_id], peer_id, name))
        self.names[peer_id] = name

    @rule(peer_id=peers, sender=peers, muted=st.booleans())
    def mute(self, peer_id, sender, muted) -> None:
        held = [
            mail.number
            for mail in self.model.mail.values()
            if (mail.to_id, mail.from_id, mail.state) == (peer_id, sender, State.HELD)
        ]
        self.rig.transport.delivered.clear()
        caller = self.joined[peer_id]
        self.run(self.rig.broker.peers.mute(caller, peer_id, sender, muted=muted))
        offered = [message.id for message in self.rig.transport.delivered]
        if muted:
            self.model.muted.add((peer_id, sender))
            assert offered == []
        else:
            self.model.muted.discard((peer_id, sender))
            assert offered == self.model.move_own(peer_id, held, Event.ADMIT) == held

    @rule(peer_id=peers)
    def register_again(self, peer_id):
        caller = self.joined[peer_id]
        joined = self.run(self.rig.join(caller, pid=caller.processes[0].pid))
        assert joined.peer.id == peer_id

    @rule(peer_id=peers)
    def connection_ended(self, peer_id) -> None:
        async def end():
            self.rig.broker.connection_ended(PeerId(peer_id))

        self.run(end())
        self.model.close(lambda each: each.owner == peer_id, Event.RETURN)

    # Mail

    @rule(
        sender=peers,
        recipient=peers,
        times=st.integers(1, 3),
        answer=st.booleans(),
        named=st.booleans(),
    )
    def send(self, sender, recipient, times, answer, named) -> None:
        """Send some messages, perhaps as answers to the newest that the sender has had."""
        for _ in range(times):
            self.texts += 1
            had = [mail.number for mail in self.model.mail.values() if mail.to_id == sender]
            reply_to = had[-1] if had and answer else None
            if reply_to is not None and self.model.mail[reply_to].hops == HOPS:
                reply_to = None
            text = f"text {self.texts}"
            mail = Mail(0, recipient, sender, text, self.model.wall, f"key {self.texts}", reply_to)
            mail.to_name = self.names[recipient] if named else None
            self._accepted(mail, self._send(mail))

    def _accepted(self, mail: Mail, receipt) -> None:
        assert not receipt.duplicate
        assert receipt.message.id > self.model.last
        answered = self.model.mail.get(mail.reply_to)
        mail.hops = answered.hops + 1 if answered else 0
        if (mail.to_id, mail.from_id) in self.model.muted:
            mail.state = State.HELD
        told = receipt.message
        assert (told.state, told.hops, told.to_name) == (mail.state, mail.hops, mail.to_name)
        self.model.last = mail.number = receipt.message.id
        if mail.reply_to is not None:
            self.model.move_own(mail.from_id, [mail.reply_to], Event.ANSWER)
        self.model.mail[mail.number] = mail

    @precondition(lambda self: any(m.state is State.DEAD for m in self.model.mail.values()))
    @rule(back=st.integers(0, 3))
    def resend(self, back) -> None:
        """Send a dead letter again; within the window of its key it is sent once."""
        dead = [mail for mail in self.model.mail.values() if mail.state is State.DEAD]
        mail = dead[-1 - back % len(dead)]
        first = self.model.mail.get(self.model.resent.get(mail.number, 0))
        known = first is not None and self.model.fresh(first)
        moved = mail.moved or (first is not None and first.moved)
        if moved or not {mail.to_id, mail.from_id} <= set(self.joined) or (first and not known):
            return
        user = Caller(knows_secret=True)
        receipt = self.run(self.rig.broker.mail.resend(user, mail.number)).receipt
        if known:
            assert (receipt.duplicate, receipt.message.id) == (True, first.number)
            return
        again = dataclasses.replace(mail, sent=self.model.wall, key="", state=State.QUEUED)
        again.handed = 0
        self._accepted(again, receipt)
        self.model.resent[mail.number] = again.number

    def _send(self, mail: Mail):
        fields = {"dedupe_key": mail.key, "reply_to": mail.reply_to, "from_id": mail.from_id}
        caller = self.joined[mail.from_id]
        return self.run(self.rig.send(mail.to_name or mail.to_id, mail.text, caller, **fields))

    @precondition(lambda self: self.model.mail)
    @rule(back=st.integers(0, 3))
    def send_again(self, back) -> None:
        """Send one of the newest messages again, as a client does after a take-over."""
        mail = list(self.model.mail.values())[-1 - back % len(self.model.mail)]
        here = {mail.to_id, mail.from_id} <= set(self.joined)
        renamed = mail.to_name and self.names[mail.to_id] != mail.to_name
        if not here or renamed or mail.moved or not mail.key or not self.model.fresh(mail):
            return
        receipt = self._send(mail)
        assert (receipt.duplicate, receipt.message.id) == (True, mail.number)
        assert receipt.message.state is mail.state

    @rule(peer_id=peers, outcome=st.sampled_from([True, True, False, None]))
    def legacy_poll(self, peer_id, outcome) -> None:
        self.model.close(
            lambda each: each.owner == peer_id and each.deadline is None and each.written,
            Event.SEE,
        )
        self._poll(peer_id, outcome)

    @rule(peer_id=peers, limit=st.integers(0, 2), skip=NUMBERS, outcome=st.sampled_from([1, 1, 0]))
    def acknowledged_poll(self, peer_id, limit, skip, outcome) -> None:
        exclude = tuple(self._numbers(skip))
        self._poll(peer_id, bool(outcome), ack_supported=True, limit=limit, exclude=exclude)

    def _poll(self, peer_id, outcome, **fields) -> None:
        self.model.give_up(peer_id, self.model.mail)
        request = PollRequest(id=peer_id, **fields)
        messages, handout = self.run(self.rig.broker.mail.poll(self.joined[peer_id], request))
        free = [n for n in self.model.offered(peer_id) if n not in request.exclude]
        expected = free[: request.limit or None]
        assert [message.id for message in messages] == expected
        # Whoever gets a message for the second time is told so.
        assert [m.deliveries for m in messages] == [self.model.mail[n].handed for n in expected]
        for number in expected:
            self.model.move(number, Event.LEASE)
        deadline = self.model.now + ACK_WITHIN if request.ack_supported else None
        if expected:
            written = outcome is True
            self.model.handed.append(Handed(peer_id, set(expected), deadline, written))

        async def hand_over():
            self.rig.broker.mail.handed_over(handout, whole=outcome)

        if outcome is not None:
            self.run(hand_over())
        if outcome is False and expected:
            newest = self.model.handed[-1]
            self.model.close(lambda each: each is newest, Event.RETURN)

    @rule(
        peer_id=peers, which=NUMBERS, event=st.sampled_from([Event.SEE, Event.RETURN, Event.PUSH])
    )
    def settle(self, peer_id, which, event) -> None:
        numbers = self._numbers(which)
        expected = self.model.settle(peer_id, numbers, event)
        work = self.rig.broker.mail.settle(self.joined[peer_id], peer_id, tuple(numbers), event)
        assert self.run(work) == expected

    def _numbers(self, back: list[int]) -> list[int]:
        """Return the numbers of some of the newest messages, whoever they are for."""
        return [self.model.last - each for each in back]

    # Time and leaders

    @rule(seconds=st.sampled_from([1.0, ACK_WITHIN, DEDUPE_WINDOW, DIRECT_TTL / 2, KEEP_DEAD]))
    def time_passes(self, seconds) -> None:
        self.model.now += seconds
        self.rig.clock.passed += seconds
        self.run(self.rig.broker.tidy())
        self.model.tidy()

    @rule(seconds=st.sampled_from([-DIRECT_TTL / 2, -60.0, DIRECT_TTL / 2, KEEP_READ]))
    def wall_clock_steps(self, seconds) -> None:
        self.model.stepped += seconds
        self.rig.clock.stepped += seconds
        self.model.latest = max(self.model.latest, self.model.wall)
        self.run(self.rig.broker.tidy())
        self.model.tidy()

    @rule(crash=st.booleans())
    def new_epoch(self, crash) -> None:
        """Lead anew, on the store as it was left."""

        async def succeed():
            if crash:
                await self.store.__aexit__(None, None, None)
                self.store = await self.opened()
            after = await make_broker(self.store)
            after.clock.passed = self.rig.clock.passed
            after.clock.stepped = self.rig.clock.stepped
            after.machine.running = self.rig.machine.running
            assert after.broker.epoch > self.rig.broker.epoch
            await after.broker.roster.load(now=after.clock.passed)
            self.rig = after

        self.run(succeed())
        self.model.handed.clear()
        for mail in self.model.mail.values():
            self.model.move(mail.number, Event.RETURN)

    # What must always hold

    @invariant()
    def every_message_is_accounted_for(self) -> None:
        if self.store is None:
            return
        ledger = self.run(self.store.ledger())
        assert ledger.balanced
        assert ledger.states == Counter(mail.state for mail in self.model.mail.values())
        assert ledger.purged == self.model.purged

    @invariant()
    def every_mailbox_is_in_order(self) -> None:
        user = Caller(knows_secret=True)
        for peer_id in self.names:  # also of who is gone: no message is in two mailboxes
            messages = self.run(self.rig.broker.mail.peek(user, peer_id))
            assert [message.id for message in messages] == self.model.offered(peer_id)
            assert [m.text for m in messages] == [self.model.mail[m.id].text for m in messages]
            mine = [m for m in self.model.mail.values() if m.to_id == peer_id]
            unread = [mail for mail in mine if mail.state in UNREAD]
            box = self.run(self.store.mailbox(PeerId(peer_id)))
            assert (box.unread, box.size) == (len(unread), sum(len(m.text) for m in unread))

    @invariant()
    def everybody_is_still_there(self) -> None:
        if self.store is not None:
            assert [peer.id for peer in self.rig.broker.roster.present()] == [*self.joined]


class MeshInMemory(Mesh):
    """On the reference store; its end is the end of the object, so it is kept."""

    async def opened(self):
        return self.store or MemoryStore()


class MeshOnSqlite(Mesh):
    """On a file, closed and opened again at each crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    async def opened(self):
        return await SqliteStore(str(Path(self.folder.name) / "mail.db")).__aenter__()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize(
    ("machine", "examples"), [(MeshInMemory, 200), (MeshOnSqlite, 80)], ids=["memory", "sqlite"]
)
def test_the_broker_does_what_the_model_says(machine, examples, monkeypatch):
    monkeypatch.setattr(broker_module, "DYING", 3600.0)
    for store in ("memory", "sqlite.mail"):
        monkeypatch.setattr(f"claude_peers.stores.{store}.DELIVERIES", DELIVERIES)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
