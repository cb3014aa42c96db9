"""The use cases: what the product does, in terms of a store and a transport."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from claude_peers.broker import registration
from claude_peers.broker.leases import ACK_WITHIN, Handout, Leases
from claude_peers.broker.ports import Claim, Clock, Here, Store, Transport
from claude_peers.broker.rates import Rates
from claude_peers.broker.roster import Roster
from claude_peers.core import access, discovery, identity, liveness
from claude_peers.core.delivery import DIRECT_TTL, Event
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.limits import SUMMARY, Limits, check_text
from claude_peers.core.models import (
    Caller,
    Draft,
    Message,
    Peer,
    PeerId,
    Process,
    Receipt,
    Trust,
)
from claude_peers.wire.records import (
    ListPeersRequest,
    PollRequest,
    RegisterRequest,
    SendMessageRequest,
)

log = logging.getLogger(__name__)

PROBED = 100
"""Peers without a live connection whose processes are looked at for each list."""
DYING = 0.5
"""Seconds after the end of a connection at which a second look is taken at its peer."""
SLICE = 500
"""Rows a purge touches in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user decided about this broker."""

    limits: Limits = field(default_factory=Limits)
    require_token: bool = False


class Broker:
    """Stores and routes for everybody who may.

    Args:
        store: where peers and mail are kept.
        transport: how peers are reached unasked.
        clock: what time it is.
        here: facts about this machine.
        options: limits and the like.
    """

    def __init__(
        self, store: Store, transport: Transport, *, clock: Clock, here: Here, options: Options
    ) -> None:
        self.store = store
        self.transport = transport
        self.roster = Roster(store)
        self.epoch = 0
        self.step_down: Callable[[float], None] = lambda _hold: None
        self._clock = clock
        self._here = here
        self._options = options
        self._leases = Leases()
        self._rates = Rates(options.limits)
        self._background: set[asyncio.Task[Any]] = set()

    async def open(self, leader: Process) -> int:
        """Take office and read the roster; return the epoch."""
        self.epoch = await self.store.take_office(leader)
        await self.roster.load(now=self._clock.monotonic())
        return self.epoch

    # Peers

    async def register(self, caller: Caller, request: RegisterRequest) -> registration.Registration:
        """Let a peer in, or in again."""
        holders = [p for p in self._unlinked() if identity.shares_key(request.keys, p)]
        if holders:  # one of them may have died unnoticed, and its mailbox be the newcomer's
            await self.sweep(holders)
        terms = registration.Terms(
            here=self._here,
            at=self._at(),
            required=self._options.require_token,
            linked=self.transport.reaches,
        )
        joined = registration.register(self.roster, caller, request, terms)
        if joined.changed:
            await self.roster.put(joined.peer)
        if joined.replaced is not None:
            await self._left(joined.replaced)
        self._heard_of(joined.peer.id)
        return joined

    async def unregister(self, caller: Caller, peer_id: str) -> None:
        """Let a peer go; its mail stays, and waits for a successor if one can be known."""
        if peer := self._mine(caller, peer_id):
            await self._left(peer)

    async def heartbeat(self, caller: Caller, peer_id: str) -> None:
        """Take a sign of life; a peer that was only silent is there again."""
        self._heard_of(peer_id)
        if again := registration.come_back(self.roster, caller, peer_id):
            await self.roster.put(again)

    async def set_summary(self, caller: Caller, peer_id: str, summary: str) -> None:
        """Change what a peer says about itself."""
        if peer := self._mine(caller, peer_id):
            await self.roster.put(replace(peer, summary=summary[:SUMMARY]))

    async def list_peers(self, request: ListPeersRequest) -> list[Peer]:
        """Return the present peers of a scope, those with a live connection as just seen."""
        if len(self._unlinked()) <= PROBED:
            await self.sweep()
        found = discovery.visible(
            self.roster.present(),
            request.scope,
            cwd=request.cwd,
            root=request.git_root,
            repo=request.repo,
        )
        at = self._at()
        return [
            replace(peer, last_seen=at) if self.transport.reaches(peer.id) else peer
            for peer in found
            if peer.id != request.exclude_id
        ]

    # Mail

    async def send(self, caller: Caller, request: SendMessageRequest) -> tuple[Receipt, Peer]:
        """Store a message for one peer, then offer it; return the receipt and the recipient."""
        sender = self._mine(caller, request.from_id)
        verified = sender is not None and access.speaks_for(caller, sender)
        source = request.from_id if verified else caller.source
        self._rates.spend(source, now=self._clock.monotonic())
        recipient = discovery.resolve(request.to_id, list(self.roster), host=self._here.host)
        check_text(request.text)
        draft = Draft(
            from_id=request.from_id,
            to_id=recipient.id,
            text=request.text,
            sent_at=self._at(),
            expires_at=self._clock.wall() + DIRECT_TTL,
            verified=verified,
            reply_to=request.reply_to,
            dedupe_key=request.dedupe_key,
        )
        receipt = await self.store.accept(draft, self._options.limits, now=self._clock.wall())
        if not receipt.duplicate:
            self.transport.deliver(receipt.message)
        if not self.transport.reaches(recipient.id):
            await self.sweep([recipient])  # it may have died unnoticed, and the answer tells
        return receipt, self.roster.get(recipient.id) or recipient

    async def poll(self, caller: Caller, request: PollRequest) -> tuple[list[Message], Handout]:
        """Hand out unread mail; what becomes of it is settled later (see `broker.leases`)."""
        owner = PeerId(request.id)
        self._mine(caller, owner)
        await self.heartbeat(caller, owner)
        seen = () if request.ack_supported else self._leases.arrived(owner)
        claim = Claim(seen=seen, exclude=request.exclude, limit=request.limit)
        try:
            messages = await self.store.hand_out(owner, claim, now=self._clock.wall())
        except ClaudePeersError:
            self._leases.begin(owner, list(seen)).written = True  # the next poll settles them
            raise
        deadline = self._clock.monotonic() + ACK_WITHIN if request.ack_supported else None
        ids = [message.id for message in messages]
        return messages, self._leases.begin(owner, ids, deadline=deadline)

    def handed_over(self, handout: Handout, *, whole: bool) -> None:
        """Learn whether a poll's answer was written; a broken one gives its messages back."""
        handout.written = whole
        if not whole:
            self._give_back(handout.owner, self._leases.drop(handout))

    async def peek(self, caller: Caller, peer_id: str) -> list[Message]:
        """Return unread mail without any effect on it."""
        self._mine(caller, peer_id)
        return await self.store.unread(PeerId(peer_id))

    async def settle(
        self, caller: Caller, peer_id: str, ids: tuple[int, ...], event: Event
    ) -> list[int]:
        """Apply evidence (SEE), a pushed mark (PUSH) or a return to messages of one mailbox."""
        owner = PeerId(peer_id)
        self._mine(caller, owner)
        moved = await self.store.move(owner, ids, event, now=self._clock.wall())
        self._leases.acknowledge(owner, tuple(moved))
        return moved

    async def owners(self, ids: tuple[int, ...]) -> dict[PeerId, tuple[int, ...]]:
        """Return whose mailboxes messages are in, for acknowledgements that do not say."""
        found: dict[PeerId, tuple[int, ...]] = {}
        for number in ids:
            if message := await self.store.message(number):
                found[message.to_id] = (*found.get(message.to_id, ()), number)
        return found

    # Connections and time

    def connection_ended(self, peer_id: PeerId) -> None:
        """Give back what a live connection had in hand, and see whether its peer lives."""
        self._give_back(peer_id, self._leases.drop_all(peer_id))
        self.in_background(self.sweep())
        # A process that dies closes its sockets first and is gone a moment later.
        loop = asyncio.get_running_loop()
        loop.call_later(DYING, lambda: self.in_background(self.sweep()))

    async def sweep(self, peers: Iterable[Peer] | None = None) -> None:
        """Let go of peers (all, or some) that are gone; give back what they had in hand."""
        lost = liveness.gone(
            self.roster if peers is None else peers,
            boot=self._here.boot,
            alive=self._here.alive,
            linked=self.transport.reaches,
            silent_for=lambda peer_id: self.roster.silent_for(peer_id, now=self._clock.monotonic()),
        )
        for peer in lost:
            log.info("peer %s is gone", peer.id)
            self._give_back(peer.id, self._leases.drop_all(peer.id))
        at = self._at()
        await self.roster.put(*(registration.gone(peer, left=False, at=at) for peer in lost))

    async def tidy(self) -> None:
        """Settle what is overdue: leases, messages past their time, forgotten peers."""
        for handout in self._leases.overdue(now=self._clock.monotonic()):
            self._give_back(handout.owner, self._leases.drop(handout))
        touched = SLICE
        while touched == SLICE:
            touched = await self.store.tidy(now=self._clock.wall(), most=SLICE)
        await self.roster.forget(gone_since=_iso(self._clock.wall() - liveness.FORGET))

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something nobody waits for; a failure is logged."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("background work failed: %s", error)

    def _give_back(self, owner: PeerId, ids: tuple[int, ...]) -> None:
        if ids:
            self.in_background(self._return(owner, ids))

    async def _return(self, owner: PeerId, ids: tuple[int, ...]) -> None:
        now = self._clock.monotonic()
        try:
            await self.store.move(owner, ids, Event.RETURN, now=self._clock.wall())
        except ClaudePeersError:
            self._leases.begin(owner, list(ids), deadline=now)  # the next round tries again
            raise

    async def _left(self, peer: Peer) -> None:
        # What it took last goes to a successor; without one, a poll under the old id settles it.
        if peer.keys:
            self._give_back(peer.id, self._leases.drop_all(peer.id))
        await self.roster.put(registration.gone(peer, left=True, at=self._at()))

    def _heard_of(self, peer_id: str) -> None:
        self.roster.alive(PeerId(peer_id), now=self._clock.monotonic(), at=self._at())

    def _unlinked(self) -> list[Peer]:
        return [peer for peer in self.roster.present() if not self.transport.reaches(peer.id)]

    def _mine(self, caller: Caller, peer_id: str) -> Peer | None:
        """Return the peer if it is known, after seeing that the caller may act for it."""
        peer = self.roster.get(peer_id)
        if peer is None:
            access.check_unknown(caller, peer_id, required=self._options.require_token)
        else:
            access.check(caller, peer, required=self._options.require_token)
            if caller.token_hash is not None and peer.trust is not Trust.TOKEN:
                self.in_background(self.roster.bind(peer.id))
        return peer

    def _at(self) -> str:
        return _iso(self._clock.wall())


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
