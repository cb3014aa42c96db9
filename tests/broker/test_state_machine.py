"""The broker against a model, on both stores: nothing lost, nothing twice unannounced, in order.

The model knows every message's state. Each step does something to the broker and to the model;
after each step the ledger, every mailbox and every hand-out must be what the model says.
"""

import asyncio
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
from claude_peers.core.models import UNREAD, PeerId, State
from claude_peers.stores.memory import MemoryStore
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ
from claude_peers.stores.sqlite.store import SqliteStore
from claude_peers.wire.records import PollRequest

PEERS = 3
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
    state: State = State.QUEUED
    handed: int = 0
    ended: float = 0.0


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
    mail: dict[int, Mail] = field(default_factory=dict)
    last: int = 0
    purged: int = 0
    handed: list[Handed] = field(default_factory=list)

    def move(self, number: int, event: Event) -> bool:
        mail = self.mail.get(number)
        to = mail and TRANSITIONS.get((mail.state, event))
        if not mail or to is None:
            return False
        mail.state = to
        mail.handed += event in (Event.LEASE, Event.PUSH)
        if to not in UNREAD:
            mail.ended = self.now
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
            for number in handed.numbers:
                self.move(number, event)

    def settle(self, owner: str, numbers: list[int], event: Event) -> list[int]:
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
            if mail.state in UNREAD and mail.sent + DIRECT_TTL <= self.now:
                self.move(mail.number, Event.EXPIRE)
            keep = KEEP_DEAD if mail.state is State.DEAD else KEEP_READ
            if mail.state not in UNREAD and mail.ended <= self.now - keep:
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
        self.texts = 0
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
        peer_id, caller = self.run(self.rig.joins_as_process(100 + len(self.joined)))
        self.joined[peer_id] = caller
        return peer_id

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

    @rule(sender=peers, recipient=peers, times=st.integers(1, 3), answer=st.booleans())
    def send(self, sender, recipient, times, answer) -> None:
        """Send some messages, perhaps as answers to the newest that the sender has had."""
        for _ in range(times):
            self.texts += 1
            had = [mail.number for mail in self.model.mail.values() if mail.to_id == sender]
            reply_to = had[-1] if had and answer else None
            text = f"text {self.texts}"
            mail = Mail(0, recipient, sender, text, self.model.now, f"key {self.texts}", reply_to)
            receipt = self._send(mail)
            assert not receipt.duplicate
            assert receipt.message.id > self.model.last
            self.model.last = mail.number = receipt.message.id
            if reply_to is not None:
                self.model.move_own(sender, [reply_to], Event.ANSWER)
            self.model.mail[mail.number] = mail

    def _send(self, mail: Mail):
        fields = {"dedupe_key": mail.key, "reply_to": mail.reply_to, "from_id": mail.from_id}
        caller = self.joined[mail.from_id]
        return self.run(self.rig.send(mail.to_id, mail.text, caller, **fields))

    @precondition(lambda self: self.model.mail)
    @rule(back=st.integers(0, 3))
    def send_again(self, back) -> None:
        """Send one of the newest messages again, as a client does after a take-over."""
        mail = list(self.model.mail.values())[-1 - back % len(self.model.mail)]
        if mail.sent <= self.model.now - DEDUPE_WINDOW:
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

    @rule(crash=st.booleans())
    def new_epoch(self, crash) -> None:
        """Lead anew, on the store as it was left."""

        async def succeed():
            if crash:
                await self.store.__aexit__(None, None, None)
                self.store = await self.opened()
            after = await make_broker(self.store)
            after.clock.passed = self.rig.clock.passed
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
        for peer_id, caller in self.joined.items():
            messages = self.run(self.rig.broker.mail.peek(caller, peer_id))
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
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
