"""Use cases about mail: sending, taking, looking, acknowledging, asking what became of it."""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass

from claude_peers.broker.arrivals import Arrivals
from claude_peers.broker.context import Context
from claude_peers.broker.fates import Fates
from claude_peers.broker.leases import Handout
from claude_peers.broker.peers import Peers
from claude_peers.broker.ports import Claim
from claude_peers.broker.rates import Exchanges, Rates
from claude_peers.broker.streams import unread
from claude_peers.core import access, outlook
from claude_peers.core.delivery import Event, lifetime, patience
from claude_peers.core.errors import (
    ClaudePeersError,
    NotPossibleError,
)
from claude_peers.core.limits import check_text
from claude_peers.core.models import (
    Caller,
    Draft,
    Intent,
    Message,
    Peer,
    PeerId,
    Receipt,
    State,
)
from claude_peers.core.profile import AT_MOST_ONCE, granted
from claude_peers.core.topics import passed_on
from claude_peers.wire.records import PollRequest, SendMessageRequest

log = logging.getLogger(__name__)

LONGEST_WAIT = 55.0
"""Seconds a poll may wait for a message: it is the only sign of life of whoever waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a sender learns.

    Attributes:
        receipt: the store's word.
        recipient: the peer as it is now.
        warnings: why it may not be read soon.
    """

    receipt: Receipt
    recipient: Peer
    warnings: list[str]


class Mail:
    """Messages.

    Args:
        context: what the broker works with.
        peers: who is there.
        fates: what became of messages.

    Attributes:
        refused: how many sends were refused, by the error's code.
        arrivals: who waits for a message.
        rates, exchanges: what everybody may still send, and to each other.
    """

    def __init__(self, context: Context, peers: Peers, fates: Fates) -> None:
        self.refused: Counter[str] = Counter()
        self._context = context
        self._peers = peers
        self._fates = fates
        self.rates = Rates(context.options.limits)
        self.exchanges = Exchanges(context.options.limits)
        self.arrivals = Arrivals()

    # Sending

    async def send(self, caller: Caller, request: SendMessageRequest) -> Sent:
        """Store a message for one peer, then offer it."""
        beside = self._context.roster.attached(caller.token_hash, request.from_id)
        try:
            sent = await self._send(caller, request)
        except ClaudePeersError as error:
            self.refused[error.code] += 1
            raise
        if beside and request.reply_to is not None:  # who answers has read it
            self._context.transport.settled(PeerId(request.from_id), [request.reply_to])
        return sent

    async def _send(self, caller: Caller, request: SendMessageRequest) -> Sent:
        context = self._context
        sender = context.mine(caller, request.from_id)
        verified = sender is not None and context.speaks_for(caller, sender)
        wall = context.clock.wall()
        from_id = request.from_id if sender else access.signed_as(caller, request.from_id)
        recipient = context.resolve(request.to_id, caller)
        check_text(request.text)
        lives = lifetime(recipient.profile.ttl(request.ttl_ms))
        waits = patience(request.answer_within_ms and request.answer_within_ms / 1000.0, lives)
        asks = request.intent == Intent.REQUEST and sender is not None
        draft = Draft(
            from_id=from_id,
            to_id=recipient.id,
            text=request.text,
            sent_at=context.at(),
            expires_at=wall + lives,
            verified=verified,
            reply_to=request.reply_to,
            dedupe_key=request.dedupe_key,
            intent=request.intent,
            to_name=recipient.name if request.to_id != recipient.id else None,
            held=from_id in recipient.muted,
            owed_at=wall + waits if asks else None,
            qos=granted(request.qos, recipient.profile.default_qos),
            topic=passed_on(request.topic, by_peer=sender is not None),
        )
        try:
            self._admit(draft, caller.source if sender is None else sender.id)
        except ClaudePeersError:
            # Sent once more, because the answer was lost: it was admitted the first time.
            if not draft.dedupe_key or await context.store.accepted(draft, now=wall) is None:
                raise
        return await self._accept(draft, recipient)

    def _admit(self, draft: Draft, source: str) -> None:
        """Count a message against what its source and the pair of peers may send."""
        now = self._context.clock.monotonic()
        self.rates.spend(source, now=now)
        self.exchanges.take_turn(draft.from_id, draft.to_id, now=now)

    async def _accept(self, draft: Draft, recipient: Peer) -> Sent:
        context, limits = self._context, self._context.options.limits
        receipt = await context.store.accept(draft, limits, now=context.clock.wall())
        if not receipt.duplicate:
            self.offer(receipt.message)
        if not context.transport.reaches(recipient.id):
            await self._look_at(recipient.id)
        known = context.roster.get(recipient.id) or recipient
        said = outlook.warnings(known, receipt, limits=limits)
        return Sent(receipt=receipt, recipient=known, warnings=said)

    async def _look_at(self, peer_id: PeerId) -> None:
        """See whether a peer has died unnoticed, which the answer to a send tells."""
        peer = self._context.roster.get(peer_id)  # a successor may have come meanwhile
        try:
            await self._peers.sweep([peer] if peer else [])
        except ClaudePeersError as error:
            # The message is stored: a refusal would be untrue. The next round looks again.
            log.warning("whether %s is there could not be noted: %s", peer_id, error)

    def offer(self, message: Message) -> None:
        """Give a message to whoever is there to take it now."""
        if message.state is not State.QUEUED:
            return
        self._context.transport.deliver(message)
        self.arrivals.tell(message.to_id)

    async def resend(self, caller: Caller, message_id: int) -> Sent:
        """Send a dead letter again, as a new message of the same sender."""
        context = self._context
        dead = (await self._fates.story(caller, message_id)).message
        if dead.state is not State.DEAD:
            raise NotPossibleError(
                f"Message {message_id} is {dead.state}, not dead",
                "Only dead letters can be sent again.",
            )
        wall, lives = context.clock.wall(), lifetime(None)
        recipient = context.resolve(dead.to_id, caller)
        asks = dead.intent == Intent.REQUEST and context.roster.get(dead.from_id) is not None
        draft = Draft(
            from_id=dead.from_id,
            to_id=recipient.id,
            text=dead.text,
            sent_at=context.at(),
            expires_at=wall + lives,
            verified=dead.verified,
            reply_to=dead.reply_to,
            dedupe_key=f"resend {message_id}",
            intent=dead.intent,
            to_name=dead.to_name,
            held=dead.from_id in recipient.muted,
            owed_at=wall + patience(None, lives) if asks else None,
        )
        return await self._accept(draft, recipient)

    # Reading

    async def poll(self, caller: Caller, request: PollRequest) -> tuple[list[Message], Handout]:
        """Hand out unread mail; what becomes of it is settled later (see `broker.leases`)."""
        context, owner = self._context, PeerId(request.id)
        context.mine(caller, owner)
        await self._peers.heartbeat(caller, owner)
        seen = () if request.ack_supported else context.leases.arrived(owner)
        claim = Claim(seen=seen, exclude=request.exclude, limit=request.limit)
        try:
            wait = max(request.wait_s, request.wait_ms / 1000.0)
            messages = await self._hand_out(caller, owner, claim, wait=wait)
        except ClaudePeersError:
            context.leases.begin(owner, list(seen)).written = True  # the next poll settles them
            raise
        within = context.options.ack_within if request.ack_supported else None
        deadline = within and context.clock.monotonic() + within
        handout = context.leases.begin(owner, [each.id for each in messages], deadline=deadline)
        handout.once = [each.id for each in messages if each.qos == AT_MOST_ONCE]
        return messages, handout

    async def _hand_out(
        self, caller: Caller, owner: PeerId, claim: Claim, *, wait: float
    ) -> list[Message]:
        """Hand out what there is, or wait for the first message that comes.

        Whoever has gone meanwhile is handed nothing.
        """
        store, clock = self._context.store, self._context.clock
        if not wait > 0:
            return await store.hand_out(owner, claim, now=clock.wall())
        with self.arrivals.of(owner, caller) as arrival:
            if messages := await store.hand_out(owner, claim, now=clock.wall()):
                return messages
            await asyncio.wait((arrival,), timeout=min(wait, LONGEST_WAIT))
            if arrival.cancelled():
                return []
            later = Claim(exclude=claim.exclude, limit=claim.limit, via=claim.via)
            return await store.hand_out(owner, later, now=clock.wall())

    def handed_over(self, handout: Handout, *, whole: bool) -> None:
        """Learn whether a poll's answer was written; a broken one gives its messages back."""
        handout.written = whole
        if not whole:
            ids = self._context.leases.drop(handout)
            self._context.give_back(handout.owner, ids, "the connection broke")
        elif handout.once:
            self._context.in_background(self._done(handout.owner, handout.once))

    async def _done(self, owner: PeerId, ids: list[int]) -> None:
        """Take the hand-out of messages as all that their senders asked for."""
        now = self._context.clock.wall()
        moved = await self._context.store.move(owner, ids, Event.SEE, now=now, via="handed out")
        self._context.leases.acknowledge(owner, tuple(moved))

    async def peek(self, caller: Caller, peer_id: str) -> list[Message]:
        """Return unread mail without any effect on it, what a stream has in hand included.

        A peer's look at its own is a sign of life, as agentmesh's clients take it for one: while
        their WebSocket is down they ask for nothing else. Its user's is none.
        """
        if not caller.knows_secret:
            self._context.mine(caller, peer_id)
        peer = self._context.roster.get(peer_id)
        if peer is not None and access.speaks_for(caller, peer):
            await self._peers.heartbeat(caller, peer.id)
        return await unread(self._context, PeerId(peer_id))

    async def settle(
        self, caller: Caller, peer_id: str, ids: tuple[int, ...], event: Event, *, via: str = ""
    ) -> list[int]:
        """Apply evidence (SEE), a pushed mark (PUSH) or a return to messages of one mailbox."""
        context, owner = self._context, PeerId(peer_id)
        context.mine(caller, owner)
        # The peer's own connection knows what it has read itself.
        beside = event is Event.SEE and context.roster.attached(caller.token_hash, owner)
        moved = await context.store.move(owner, ids, event, now=context.clock.wall(), via=via)
        context.leases.acknowledge(owner, tuple(moved))
        context.transport.look_again(owner)
        if beside and moved:
            context.transport.settled(owner, moved)
        return moved
