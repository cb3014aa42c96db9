"""Who has subscribed to what, and the one way to the store for what is published.

Subscriptions and last values are in memory, written through to the store: only the leader writes.
They change in memory first, and without a pause before the store is asked, so that whoever
subscribes while something is published gets it either as a copy or as the last value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from claude_peers.broker.context import Context
from claude_peers.broker.mail import Mail
from claude_peers.broker.retained import LastValues
from claude_peers.core.errors import (
    ClaudePeersError,
    MailboxFullError,
    PeerNotFoundError,
    TooManyTopicsError,
)
from claude_peers.core.limits import SUBSCRIPTIONS
from claude_peers.core.models import Caller, Draft, Peer, PeerId, Presence, Receipt, Retained
from claude_peers.core.topics import Subscriptions, check_pattern
from claude_peers.core.wills import Will


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """What a subscriber learns.

    Attributes:
        patterns: all of its patterns now.
        given: last values that it got.
        missed: last values for which its mailbox had no room.
    """

    patterns: tuple[str, ...]
    given: int = 0
    missed: int = 0


class Topics:
    """Subscriptions and last values.

    Args:
        context: what the broker works with.
        mail: offers what was stored.

    Attributes:
        last_values: the last value of each topic that has one.
    """

    def __init__(self, context: Context, mail: Mail) -> None:
        self.last_values = LastValues()
        self._context = context
        self._mail = mail
        self._subscriptions = Subscriptions()

    async def load(self) -> None:
        """Read subscriptions and last values."""
        store = self._context.store
        for peer_id, pattern in await store.subscriptions():
            self._subscriptions.add(peer_id, pattern)
        self.last_values.load(await store.retained())

    async def tidy(self, *, now: float) -> None:
        """Forget last values whose time is over, and subscriptions of peers that are forgotten."""
        for value in self.last_values.over(now):
            await self.publish([], keep=replace(value, text=""))
        for peer_id in self._subscriptions.peers():
            if self._context.roster.get(peer_id) is None:
                for pattern in self._subscriptions.of(peer_id):
                    self._subscriptions.discard(peer_id, pattern)

    async def subscribe(self, caller: Caller, peer_id: str, pattern: str) -> Subscribed:
        """Let a peer have what is published from now on, and the last values that are kept.

        Raises:
            BadRequestError: that is no pattern.
            PeerNotFoundError: nobody has this id; what is sent to nobody would pile up.
            TooManyTopicsError: the peer has too many patterns.
        """
        context, known = self._context, self._subscriptions
        peer = context.mine(caller, peer_id)
        check_pattern(pattern)
        if peer is None or peer.presence is Presence.DEPARTED:
            raise PeerNotFoundError(peer_id)
        before = known.of(peer.id)
        if pattern in before:
            return Subscribed(patterns=before)
        if len(before) >= SUBSCRIPTIONS:
            raise TooManyTopicsError(
                f"You have {SUBSCRIPTIONS} subscriptions", "Unsubscribe from one, or use wildcards."
            )
        known.add(peer.id, pattern)
        now, limits = context.clock.wall(), context.options.limits
        drafts = list(self.last_values.new_to(peer, pattern, before, now=now))
        try:
            results = await context.store.subscribe((peer.id, pattern), drafts, limits, now=now)
        except ClaudePeersError:
            known.discard(peer.id, pattern)
            raise
        given = [each for each in results if isinstance(each, Receipt)]
        for receipt in given:
            self._mail.offer(receipt.message)
        missed = len(results) - len(given)
        return Subscribed(patterns=known.of(peer.id), given=len(given), missed=missed)

    async def unsubscribe(self, caller: Caller, peer_id: str, pattern: str) -> Subscribed:
        """Let a peer have no more of a pattern; one that it has not is no error."""
        context, known = self._context, self._subscriptions
        context.mine(caller, peer_id)
        if known.discard(peer_id, pattern):
            try:
                await context.store.unsubscribe((PeerId(peer_id), pattern))
            except ClaudePeersError:
                known.add(peer_id, pattern)
                raise
        return Subscribed(patterns=known.of(peer_id))

    def subscribers(self, topic: str) -> list[Peer]:
        """Return whom a topic reaches, also those that are away: their mailboxes wait for them."""
        known = (self._context.roster.get(each) for each in self._subscriptions.to(topic))
        return [peer for peer in known if peer and peer.presence is not Presence.DEPARTED]

    async def publish(
        self,
        drafts: Sequence[Draft],
        *,
        keep: Retained | None = None,
        key: str | None = None,
        will: Will | None = None,
    ) -> list[Receipt | MailboxFullError]:
        """Store what is published, as `Store.publish` does, and offer it.

        `keep` is not kept already; `will` is armed.
        """
        context, values = self._context, self.last_values
        earlier = None if keep is None else values.get(keep.topic)
        if keep is not None:
            values.put(keep)
        now, limits = context.clock.wall(), context.options.limits
        try:
            if will is None:
                results = await context.store.publish(drafts, limits, now=now, keep=keep, key=key)
            else:
                results = await context.store.publish_will(will, drafts, limits, now=now, keep=keep)
        except ClaudePeersError:
            if keep is not None and values.get(keep.topic) is (keep if keep.text else None):
                values.put(earlier or replace(keep, text=""))
            raise
        for result in results:
            if isinstance(result, Receipt) and not result.duplicate:
                self._mail.offer(result.message)
        return results
