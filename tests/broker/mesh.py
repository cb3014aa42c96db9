"""What can happen to a broker, for the stateful test: each step is done to it and to the model."""

import asyncio
import dataclasses
import itertools
from collections import Counter

from broker.model import OFFERED, Handed, Link, Mail, Model
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from support.brokers import LEADER, NO_LIMITS, Caller, Clock, Machine, Rig

from claude_peers.broker.broker import Broker
from claude_peers.broker.context import Options
from claude_peers.broker.leases import ACK_WITHIN
from claude_peers.core.delivery import DIRECT_TTL, Event
from claude_peers.core.limits import HOPS
from claude_peers.core.models import UNREAD, PeerId, State
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ
from claude_peers.transports.live import LiveConnections, Stream
from claude_peers.wire.records import PollRequest

PEERS = 3
IDLE = 3
"""Leaders and hours that come and go without mail: more in a row show nothing."""
NUMBERS = st.integers(0, 63).map(lambda bits: [place for place in range(6) if bits >> place & 1])
"""Some of the newest messages."""
EVERYTHING = 1_000_000
ROOM = st.sampled_from([0, 1, 3, EVERYTHING])
"""Frames that a client reads before it stops to."""


class Live(LiveConnections):
    """The real transport, which tells what was offered to it."""

    def __init__(self, store) -> None:
        super().__init__(store, lambda _peer_id: None)
        self.delivered: list[int] = []

    def deliver(self, message) -> None:
        self.delivered.append(message.id)
        super().deliver(message)

    async def settled(self) -> None:
        while waiting := list(self._tasks):
            await asyncio.wait(waiting)


async def lead(store) -> Rig:
    """Return a broker in office that pushes over live connections."""
    clock, machine = Clock(), Machine()
    live = Live(store)
    options = Options(limits=NO_LIMITS)
    broker = Broker(store, live, clock=clock, here=machine.here(), options=options)
    live.find = broker.roster.get
    await broker.open(LEADER)
    return Rig(broker, store, clock, machine, live)


class Mesh(RuleBasedStateMachine):
    """Drives a broker; subclasses say on which store."""

    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()  # a Runner would handle signals anew at each step
        self.model = Model()
        self.joined: dict[str, Caller] = {}
        self.names: dict[str, str] = {}  # also of who is gone
        self.texts = 0
        self.pids = itertools.count(100)
        self.store = None
        self.streams: dict[str, Stream] = {}
        self.received: dict[str, list[int]] = {}  # by each peer's process, over all connections
        self.steps = self.eventless = self.changes = 0

    async def opened(self):
        raise NotImplementedError

    async def killed(self):
        """Return the store as a SIGKILL of the leader leaves it."""
        raise NotImplementedError

    def run(self, work):
        """Run something to its end, and what it started in the background as well."""

        async def whole():
            result = await work
            await self.rig.settled()
            await self.rig.transport.settled()
            return result

        return self.loop.run_until_complete(whole())

    def call(self, work, *arguments, **named):
        """Call a function on the loop, and wait for what it has started."""

        async def called():
            return work(*arguments, **named)

        return self.run(called())

    async def _begin(self) -> None:
        self.store = await self.opened()
        self.rig = await lead(self.store)

    @initialize(target=peers)
    def begin(self):
        self.loop.run_until_complete(self._begin())
        return multiple(*(self._enter(f"peer-{number}") for number in range(PEERS)))

    def teardown(self) -> None:
        if self.store is not None:
            self.loop.run_until_complete(self.store.__aexit__(None, None, None))
        self.loop.close()

    # Peers

    def _enter(self, name: str):
        peer_id, caller = self.run(self.rig.joins_as_process(next(self.pids), name=name))
        self.joined[peer_id], self.names[peer_id] = caller, name
        return peer_id

    @rule(target=peers, old=consumes(peers), killed=st.booleans())
    def is_succeeded(self, old, killed):
        """Let a peer leave, or its process be killed, and another take its name and its mail.

        That is, the mail that was sent to the name.
        """
        caller, name = self.joined.pop(old), self.names[old]
        if killed:
            self.rig.machine.end(caller.processes[0].pid)
            self._ended(old)
        else:
            if old in self.model.links:
                self._ended(old)
            self.run(self.rig.broker.peers.unregister(caller, old))
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

    @rule(peer_id=peers, sender=peers)
    def mute(self, peer_id, sender) -> None:
        if sender != peer_id:
            self.run(self.rig.broker.peers.mute(self.joined[peer_id], peer_id, sender, muted=True))
            self.model.muted.add((peer_id, sender))

    @rule(peer_id=peers)
    def unmute(self, peer_id) -> None:
        """Unmute all that are muted; what they sent is offered."""
        for muted in [each for each in self.model.muted if each[0] == peer_id]:
            self.model.muted.discard(muted)
            if muted[1] in self.joined:
                self._unmute(*muted)

    def _unmute(self, peer_id, sender) -> None:
        held = [
            mail.number
            for mail in self.model.mail.values()
            if (mail.to_id, mail.from_id, mail.state) == (peer_id, sender, State.HELD)
        ]
        self.rig.transport.delivered.clear()
        caller = self.joined[peer_id]
        self.run(self.rig.broker.peers.mute(caller, peer_id, sender, muted=False))
        moved = self.model.move_own(peer_id, held, Event.ADMIT)
        assert self.rig.transport.delivered == moved == held
        for number in held:
            self.model.offer(number)

    @rule(peer_id=peers)
    def register_again(self, peer_id):
        caller = self.joined[peer_id]
        joined = self.run(self.rig.join(caller, pid=caller.processes[0].pid))
        assert joined.peer.id == peer_id

    # Connections

    @rule(peer_id=peers, again=st.booleans(), room=ROOM)
    def connect(self, peer_id, again, room) -> None:
        """Open a live connection, `again` for the process that had the one before.

        If that one is still there, only nobody has noticed that it is dead.
        """
        if peer_id in self.model.links:
            self._ended(peer_id, detached=False)
        received = self.received.setdefault(peer_id, [])
        if not again:
            received.clear()
        after = max(received, default=0)
        owed = [number for number in self.model.offered(peer_id) if number > after]
        link = self.model.links[peer_id] = Link(owed, received, room=room)
        attach = self.rig.transport.attach
        self.streams[peer_id] = self.call(attach, PeerId(peer_id), link, after=after)

    @rule(peer_id=peers, sender=peers, other=peers)
    def comes_late(self, peer_id, sender, other) -> None:
        """Let a message be admitted that is older than the last push, to a client not reading."""
        if len({peer_id, sender, other}) < PEERS:
            return
        self.read(peer_id, EVERYTHING)
        self.mute(peer_id, sender)
        self._send_new(sender, peer_id)
        if peer_id in self.model.links:
            self.model.links[peer_id].room = 1
        self._send_new(other, peer_id)
        self.unmute(peer_id)

    @rule(peer_id=peers, room=ROOM)
    def read(self, peer_id, room) -> None:
        """Let a client that has stopped to read take some more."""
        if peer_id in self.model.links:
            self.model.links[peer_id].room = room
            self.call(self.streams[peer_id].drained)

    @rule(peer_id=peers)
    def connection_ended(self, peer_id) -> None:
        self._ended(peer_id)

    def _ended(self, peer_id, *, detached=True) -> None:
        if self.model.links.pop(peer_id, None) and detached:
            assert self.rig.transport.detach(self.streams[peer_id])
        self.call(self.rig.broker.connection_ended, PeerId(peer_id))
        self.model.close(lambda each: each.owner == peer_id, Event.RETURN)

    # Mail

    @rule(sender=peers, recipient=peers, times=st.integers(1, 3))
    def send(self, sender, recipient, times) -> None:
        for _ in range(times):
            self._send_new(sender, recipient)

    @rule(sender=peers, recipient=peers)
    def send_to_the_name(self, sender, recipient) -> None:
        self._send_new(sender, recipient, to_name=self.names[recipient])

    @rule(sender=peers, recipient=peers)
    def answer(self, sender, recipient) -> None:
        """Answer the newest message that the sender has had."""
        had = [mail.number for mail in self.model.mail.values() if mail.to_id == sender]
        reply_to = had[-1] if had and self.model.mail[had[-1]].hops < HOPS else None
        self._send_new(sender, recipient, reply_to=reply_to)

    def _send_new(self, sender, recipient, **fields) -> None:
        self.texts += 1
        text, key = f"text {self.texts}", f"key {self.texts}"
        mail = Mail(0, recipient, sender, text, self.model.wall, key, **fields)
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
        if answered is not None:
            # Only to its sender it is an answer; to somebody else it shows that it was read.
            proved = Event.ANSWER if answered.from_id == mail.to_id else Event.SEE
            self.model.move_own(mail.from_id, [mail.reply_to], proved)
        self.model.mail[mail.number] = mail
        self.model.changes += 1
        self.model.offer(mail.number)
        self.what_is_pushed_is_due()  # before the next one may answer it

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

        if outcome is not None:
            self.call(self.rig.broker.mail.handed_over, handout, whole=outcome)
        if outcome is False and expected:
            newest = self.model.handed[-1]
            self.model.close(lambda each: each is newest, Event.RETURN)

    @rule(
        peer_id=peers, which=NUMBERS, event=st.sampled_from([Event.SEE, Event.RETURN, Event.PUSH])
    )
    def settle(self, peer_id, which, event) -> None:
        numbers = self._numbers(which) + self.received.get(peer_id, [])[-3:]
        expected = self.model.settle(peer_id, numbers, event)
        work = self.rig.broker.mail.settle(self.joined[peer_id], peer_id, tuple(numbers), event)
        assert self.run(work) == expected

    def _numbers(self, back: list[int]) -> list[int]:
        """Return the numbers of some of the newest messages, whoever they are for."""
        return [self.model.last - each for each in back]

    # Time and leaders

    @precondition(lambda self: self.eventless < IDLE)
    @rule(seconds=st.sampled_from([1.0, ACK_WITHIN, DEDUPE_WINDOW, DIRECT_TTL / 2, KEEP_DEAD]))
    def time_passes(self, seconds) -> None:
        self._go_on()
        self.model.now += seconds
        self.rig.clock.passed += seconds
        self.run(self.rig.broker.tidy())
        self.model.tidy()

    @precondition(lambda self: self.eventless < IDLE)
    @rule(seconds=st.sampled_from([-DIRECT_TTL / 2, -60.0, DIRECT_TTL / 2, KEEP_READ]))
    def wall_clock_steps(self, seconds) -> None:
        self._go_on()
        self.model.stepped += seconds
        self.rig.clock.stepped += seconds
        self.model.latest = max(self.model.latest, self.model.wall)
        self.run(self.rig.broker.tidy())
        self.model.tidy()

    @precondition(lambda self: self.eventless < IDLE)
    @rule(how=st.sampled_from(["another leads", "ended", "killed"]))
    def new_epoch(self, how) -> None:
        """Lead anew, on the store as it was left."""
        self._go_on()

        async def succeed():
            before = self.store
            if how == "killed":
                self.store = await self.killed()
            if how != "another leads":
                await before.__aexit__(None, None, None)
            if how == "ended":
                self.store = await self.opened()
            after = await lead(self.store)
            after.clock.passed = self.rig.clock.passed
            after.clock.stepped = self.rig.clock.stepped
            after.machine.running = self.rig.machine.running
            assert after.broker.epoch > self.rig.broker.epoch
            await after.broker.roster.load(now=after.clock.passed)
            self.rig = after

        self.run(succeed())
        self.model.handed.clear()
        self.model.links.clear()
        for mail in self.model.mail.values():
            self.model.move(mail.number, Event.RETURN)

    def _go_on(self) -> None:
        """Count how often nothing happened to mail between one of these steps and the next."""
        self.eventless = self.eventless + 1 if self.model.changes == self.changes else 0
        self.changes = self.model.changes

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
        kept = {peer_id: ([], []) for peer_id in self.names}
        for mail in self.model.mail.values():
            unread, offered = kept[mail.to_id]
            if mail.state in UNREAD:
                unread.append(mail)
            if mail.state in OFFERED:
                offered.append(mail)
        self.loop.run_until_complete(self._compare(kept))

    async def _compare(self, kept) -> None:
        user = Caller(knows_secret=True)
        for peer_id, (unread, offered) in kept.items():  # also of who is gone: none has two
            found = await self.rig.broker.mail.peek(user, peer_id)
            told = [(message.id, message.text) for message in found]
            assert told == [(mail.number, mail.text) for mail in offered]
            box = await self.store.mailbox(PeerId(peer_id))
            assert (box.unread, box.size) == (len(unread), sum(len(m.text) for m in unread))

    @invariant()
    def everybody_is_still_there(self) -> None:
        if self.store is not None:
            assert [peer.id for peer in self.rig.broker.roster.present()] == [*self.joined]

    @invariant()
    def what_is_pushed_is_due(self) -> None:
        """Each push is in its place, and whoever reads has got what it is owed."""
        for peer_id, link in self.model.links.items():
            for view in link.read():
                self.model.pushed(peer_id, view)
            assert link.clogged or link.owed <= set(link.got)

    @invariant()
    def a_step_is_counted(self) -> None:
        self.steps += 1
