"""What a stream to a peer has in hand: mail that is leased to it until it is acknowledged.

A stream is a connection that is handed mail as it comes and cannot be taken at its word: a
WebSocket, or a stream of events. What it was handed is its own until the peer acknowledges it, its
lease is overdue, or the connection ends; then the rest is there again, for the next connection or
for a poll. Each hand-out is counted, and ends in a dead letter as any other does.
"""

from dataclasses import replace

from claude_peers.broker.context import Context
from claude_peers.broker.leases import Handout
from claude_peers.broker.ports import Claim
from claude_peers.core.delivery import Event
from claude_peers.core.limits import PAGE
from claude_peers.core.models import Caller, Message, PeerId, State

IN_HAND = 1000
"""Messages one stream may have in hand: as many as a mailbox holds."""
IN_HAND_TEXT = 4 * 1024 * 1024
"""Characters of their texts, after which no further page is taken."""


class Hand:
    """The messages that one stream has in hand.

    Args:
        context: what the broker works with.
        owner: the peer at the other end.
        via: what kind of stream it is, for the messages' stories.
        ack_within: seconds to acknowledge a message; infinite for as long as the stream lasts.
        upto: the last message that arrived over an earlier stream of this kind, 0 if unknown.
    """

    def __init__(
        self, context: Context, owner: PeerId, *, via: str, ack_within: float, upto: int = 0
    ) -> None:
        self.owner = owner
        self._context = context
        self._via = via
        self._ack_within = ack_within
        self._upto = upto
        self._ended = False
        self._open: list[Handout] = []
        self._sizes: dict[int, int] = {}

    @property
    def room(self) -> int:
        """How many more messages it may take."""
        count = self.count
        return 0 if sum(self._sizes.values()) >= IN_HAND_TEXT else IN_HAND - count

    @property
    def count(self) -> int:
        """How many messages it has."""
        self._open = [handout for handout in self._open if not handout.closed]
        held = set[int]().union(*(handout.ids for handout in self._open))
        self._sizes = {number: size for number, size in self._sizes.items() if number in held}
        return len(held)

    def holds(self, message_id: int) -> bool:
        """Whether a message is in hand, and neither acknowledged nor given back."""
        return any(message_id in each.ids for each in self._open if not each.closed)

    async def take(self) -> list[Message]:
        """Take a page of what is unread, oldest first; see `room`.

        Raises:
            StoreError: nothing was taken.
        """
        if self._upto:
            await self._arrived(self._upto)
            self._upto = 0
        context = self._context
        claim = Claim(limit=min(PAGE, self.room), via=self._via)
        messages = await context.store.hand_out(self.owner, claim, now=context.clock.wall())
        deadline = context.clock.monotonic() + self._ack_within
        ids = [message.id for message in messages]
        if ids:
            handout = context.leases.begin(self.owner, ids, deadline=deadline)
            handout.streamed = True
            self._open.append(handout)
            self._sizes |= {message.id: len(message.text) for message in messages}
        if self._ended:
            self._give_back()
        return messages

    async def seen(self, ids: list[int]) -> None:
        """Take evidence that the peer has read messages, in this hand or not."""
        context = self._context
        now, via = context.clock.wall(), f"{self._via} ack"
        moved = await context.store.move(self.owner, ids, Event.SEE, now=now, via=via)
        context.leases.acknowledge(self.owner, tuple(moved))
        context.transport.look_again(self.owner)

    def end(self) -> None:
        """Give back what is in hand: the connection has ended, or another took its place."""
        self._ended = True
        self._give_back()

    def _give_back(self) -> None:
        handouts, self._open = self._open, []
        for handout in handouts:
            ids = self._context.leases.drop(handout)
            self._context.give_back(self.owner, ids, "the connection ended")

    async def _arrived(self, upto: int) -> None:
        """Settle what was handed out before, over streams of this kind, up to a message.

        Ids alone do not tell: what came back is handed out again behind newer messages.
        """
        store, after, arrived = self._context.store, 0, list[int]()
        last = max((await self._handed_out([upto])).values(), default=None)
        if last is None:
            return
        while page := await store.unread(self.owner, after=after, limit=PAGE):
            after = page[-1].id
            handed = [each.id for each in page if each.id <= upto and each.deliveries]
            times = await self._handed_out(handed)
            arrived += [number for number, at in times.items() if at <= last]
            if after >= upto:
                break
        if arrived:
            await self.seen(arrived)

    async def _handed_out(self, ids: list[int]) -> dict[int, float]:
        """Return when messages were last handed out, those to a stream of this kind only."""
        times = {}
        for story in await self._context.store.stories(ids):
            leased = [step for step in story.steps if step.event == Event.LEASE]
            if leased and leased[-1].via == self._via:
                times[story.message.id] = leased[-1].at
        return times


class Streams:
    """The streams' way to mail.

    Args:
        context: what the broker works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def open(
        self, caller: Caller, peer_id: str, *, via: str, ack_within: float, upto: int = 0
    ) -> Hand:
        """Return an empty hand for a stream to a peer; see `Hand`.

        Raises:
            NotYourPeerError: the caller may not act for it.
        """
        self._context.mine(caller, peer_id)
        return Hand(self._context, PeerId(peer_id), via=via, ack_within=ack_within, upto=upto)


async def unread(context: Context, owner: PeerId) -> list[Message]:
    """Return a peer's unread mail, oldest first, with what would come again if its stream broke."""
    # Before and after: what is handed out or comes back meanwhile is in one of the two.
    held = context.leases.streamed(owner)
    waiting = await context.store.unread(owner)
    held |= context.leases.streamed(owner)
    held -= {message.id for message in waiting}
    if not held:
        return waiting
    found = (story.message for story in await context.store.stories(held))
    # The hand-out that is under way is no redelivery.
    leased = [
        replace(each, deliveries=each.deliveries - 1)
        for each in found
        if (each.state, each.to_id) == (State.LEASED, owner)
    ]
    return sorted([*waiting, *leased], key=lambda message: message.id)
