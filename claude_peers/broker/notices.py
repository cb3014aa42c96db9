"""What the broker itself tells senders: that an answer they wait for has not come, or will not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from claude_peers.broker.context import Context
from claude_peers.core.delivery import lifetime
from claude_peers.core.models import SYSTEM, Draft, Intent, Message, Peer, PeerId, Presence, State

NOTICES = 64
"""Notices written at a time."""


class Notices:
    """Tells who sent a request, once, that no answer came.

    Args:
        context: what the broker works with.
        offer: gives a message to whoever is there to take it.
    """

    def __init__(self, context: Context, offer: Callable[[Message], None]) -> None:
        self._context = context
        self._offer = offer

    async def remind(self, *, now: float) -> None:
        """Tell the senders of requests that no answer came in time."""
        store = self._context.store
        while overdue := await store.owed(now=now, limit=NOTICES):
            await asyncio.gather(*(self._tell(each, "has not answered") for each in overdue))

    async def deserted(self, peer: Peer) -> None:
        """Tell those who wait for an answer of a peer that it is gone."""
        what = "ended before it answered" if peer.process else "went away before it answered"
        # Who asked somebody that was away already knows, and waits for its time-out.
        while owed := [
            each
            for each in await self._context.store.owed(by=peer.id, limit=NOTICES)
            if each.sent_at <= peer.last_seen
        ]:
            await asyncio.gather(*(self._tell(each, what) for each in owed))

    async def catch_up(self) -> None:
        """Tell what an earlier broker could not tell any more, which may have ended with a peer."""
        for peer in [
            each for each in self._context.roster if each.presence is not Presence.PRESENT
        ]:
            await self.deserted(peer)

    async def _tell(self, request: Message, what: str) -> None:
        context = self._context
        peer = context.roster.get(request.to_id)
        name = peer.name if peer else request.to_id
        where = "It was read" if request.state is State.SEEN else "It stays in that mailbox"
        text = (
            f"{name} {what} your message {request.id}. {where}; "
            f"message_status {request.id} tells more. This is said once."
        )
        draft = Draft(
            from_id=SYSTEM,
            to_id=PeerId(request.from_id),
            text=text,
            sent_at=context.at(),
            expires_at=context.clock.wall() + lifetime(None),
            verified=True,
            intent=Intent.INFORM,
            notice_of=request.id,
        )
        # One for each request it sent: a full mailbox must not keep it from learning this.
        unbounded = replace(context.options.limits, mailbox=0)
        receipt = await context.store.accept(draft, unbounded, now=context.clock.wall())
        if not receipt.duplicate:
            self._offer(receipt.message)
