"""The broker: what the product does, in terms of a store and a transport."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from claude_peers.broker.broadcasts import Broadcasts
from claude_peers.broker.context import Context, Options, iso
from claude_peers.broker.fates import Fates
from claude_peers.broker.hooks import Hooks
from claude_peers.broker.machines import Machines
from claude_peers.broker.mail import Mail
from claude_peers.broker.notices import Notices
from claude_peers.broker.peers import Peers
from claude_peers.broker.ports import Clock, Here, Store, Transport
from claude_peers.broker.streams import Streams
from claude_peers.broker.topics import Topics
from claude_peers.broker.webhooks import ROUTE, Webhooks
from claude_peers.broker.wills import Wills
from claude_peers.core import liveness
from claude_peers.core.models import PeerId, Process

log = logging.getLogger(__name__)

DYING = 0.5
"""Seconds after the end of a connection at which a second look is taken at its peer."""
SLICE = 500
"""Rows a purge touches in one transaction."""


class Broker:
    """Stores and routes for everybody who may.

    Args:
        store: where peers and mail are kept.
        transport: how peers are reached unasked.
        clock: what time it is.
        here: facts about this machine.
        options: limits and the like.

    Attributes:
        peers: the use cases about peers.
        mail: the use cases about messages.
        fates: what became of messages.
        topics: who has subscribed to what.
        broadcasts: the use cases about messages for many.
        notices: what the broker itself tells senders.
        wills: what is published for peers that are lost.
        streams: the streams' way to mail.
        webhooks: where peers have their mail posted to.
        hooks: who may publish by a post.
        machines: who may come from elsewhere.
        epoch: the epoch this broker leads in.
        step_down: lets another node lead, and keeps all from campaigning for so many seconds.
    """

    def __init__(
        self, store: Store, transport: Transport, *, clock: Clock, here: Here, options: Options
    ) -> None:
        context = Context(store, transport, clock=clock, here=here, options=options)
        self.store = store
        self.clock = clock
        self.options = options
        self.host = here.host
        self.transport = transport
        self.roster = context.roster
        self.epoch = 0
        self.step_down: Callable[[float], None] = lambda _hold: None
        self.in_background = context.in_background
        self.managed = context.managed
        self.peers = Peers(context)
        self.fates = Fates(context)
        self.mail = Mail(context, self.peers, self.fates)
        self.topics = Topics(context, self.mail)
        self.broadcasts = Broadcasts(context, self.mail, self.topics)
        self.wills = Wills(context, self.broadcasts.publish_will)
        self.streams = Streams(context)
        self.webhooks = Webhooks(context)
        self.hooks = Hooks(context, self.broadcasts)
        self.machines = Machines(store, clock, host=here.host, in_background=context.in_background)
        self.notices = Notices(context, self.mail.offer)
        self.peers.gone, self.peers.offer = self.notices.deserted, self.mail.offer
        self.peers.wills = self.wills
        self._context = context

    async def open(self, leader: Process) -> int:
        """Take office and read the roster; return the epoch."""
        clock = self._context.clock
        self.epoch = await self.store.take_office(leader, now=clock.wall())
        now = clock.monotonic()
        await asyncio.gather(
            self.roster.load(now=now),
            self.machines.load(),
            self.topics.load(),
            self.wills.load(),
            self.hooks.load(),
        )
        await self.webhooks.load()
        self.in_background(self.notices.catch_up())
        return self.epoch

    def connection_ended(self, peer_id: PeerId) -> None:
        """Give back what a live connection had in hand, and see whether its peer lives."""
        context = self._context
        if (peer := self.roster.get(peer_id)) is not None and peer.machine:
            context.heard_of(peer_id)  # a network that fails for a moment takes nobody away
        context.give_back(peer_id, context.leases.drop_all(peer_id), "the connection ended")
        self._look_after()

    def reached_by(self, peer_id: PeerId, route: str) -> None:
        """Note how a peer is reached, "" if it is not."""
        if (peer := self.roster.get(peer_id)) is not None:
            self.roster.note(replace(peer, route=route))

    def stream_ended(self, peer_id: PeerId, *, missed: bool) -> None:
        """Count a peer's silence from now on, and see whether it lives.

        Args:
            peer_id: whose stream has ended, which has given back what it had in hand.
            missed: whether its last will is due unless it is heard of again.
        """
        self._context.heard_of(peer_id)
        self.reached_by(peer_id, ROUTE if self.webhooks.get(peer_id) else "")
        if missed:
            self.wills.connection_ended(peer_id)
        self._look_after()

    def _look_after(self) -> None:
        """See who has gone with a connection, now and in a moment."""
        context = self._context
        context.in_background(self.peers.sweep())
        # A process that dies closes its sockets first and is gone a moment later.
        loop = asyncio.get_running_loop()
        loop.call_later(DYING, lambda: context.in_background(self.peers.sweep()))

    def keep_time(self) -> None:
        """Notice sleep and a clock that is set; called every few seconds, or never."""
        self._context.lapses.begin()
        self.peers.wake()

    async def tidy(self) -> None:
        """Settle what is overdue: leases, requests, messages past their time, forgotten peers."""
        context, wall = self._context, self._context.lapses.wall()
        for handout in context.leases.overdue(now=context.clock.monotonic()):
            ids = context.leases.drop(handout)
            context.give_back(handout.owner, ids, "it was not acknowledged in time")
        # At the same time as what expires, so that nobody dies unreminded.
        # Both reads in one batch: an idle leader wakes its store's thread once, not twice.
        _, ledger = await asyncio.gather(self.notices.remind(now=wall), self.store.ledger())
        if not ledger.balanced:
            log.error("messages are not accounted for: %s", ledger)
        touched = SLICE
        while touched == SLICE:
            touched = await self.store.tidy(now=wall, most=SLICE)
        await self.roster.forget(gone_since=iso(wall - liveness.FORGET))
        await self.topics.tidy(now=wall)
        await self.wills.tidy()
