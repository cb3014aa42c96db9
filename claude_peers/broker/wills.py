"""When a last will is published, and that it is published once (see `core.wills`).

Wills are in memory, written through to the store; what disarms one publishes it, in one
transaction. A failure leaves it armed, and the next round tries again. So does a machine of which
too many peers are lost at once: nobody's will is dropped, and nobody's mailbox is flooded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from claude_peers.broker.context import Context
from claude_peers.core import liveness
from claude_peers.core.errors import ClaudePeersError, RateLimitedError
from claude_peers.core.models import Peer, PeerId, Presence
from claude_peers.core.wills import RECONNECT, Will, check_will
from claude_peers.wire.wills import LastWill

log = logging.getLogger(__name__)


class Wills:
    """Every peer's last will.

    Args:
        context: what the broker works with.
        publish: publishes one, and disarms it, unless that was done before; raises
            `RateLimitedError` if the peer's machine has had enough of them published for now.
    """

    def __init__(self, context: Context, publish: Callable[[Peer, Will], Awaitable[None]]) -> None:
        self._context = context
        self._publish = publish
        self._wills: dict[PeerId, Will] = {}
        self._stopped = False

    async def load(self) -> None:
        """Read all wills."""
        self._wills = {will.peer_id: will for will in await self._context.store.wills()}

    def topic(self, peer_id: PeerId) -> str | None:
        """Return where a peer's last will is published, None if it has none."""
        will = self._wills.get(peer_id)
        return will.topic if will else None

    def stop(self) -> None:
        """Miss nobody any more: this broker hands over, and every connection ends."""
        self._stopped = True

    async def came(self, peer: Peer, lwt: LastWill | None) -> None:
        """Arm what a peer brings along, or what it had; an empty topic takes its will back.

        Raises:
            BadRequestError: that is no topic.
            RetainedTooLongError: the text is too long.
        """
        if lwt is None:
            known = self._wills.get(peer.id)
            will = known and replace(known, armed=True)
        elif lwt.topic:
            will = will_of(peer.id, lwt)
        else:
            await self.left(peer.id)
            return
        if will is not None and will != self._wills.get(peer.id):
            await self._context.store.save_will(will)
            self._wills[peer.id] = will

    async def left(self, peer_id: PeerId) -> None:
        """Forget the will of a peer that says goodbye."""
        if peer_id in self._wills:
            await self._context.store.drop_will(peer_id)
            self._wills.pop(peer_id, None)

    def connection_ended(self, peer_id: PeerId) -> None:
        """Miss a peer if it is not heard of again before long."""
        ended = self._context.clock.monotonic()
        loop = asyncio.get_running_loop()
        loop.call_later(RECONNECT, self._look_for, peer_id, ended)

    async def lost(self, peer: Peer) -> bool:
        """Publish the will of a peer that is lost, unless that was done; False if it has to wait.

        Raises:
            StoreError: it could not be published.
        """
        will = self._wills.get(peer.id)
        if will is None or not will.armed or self._stopped:
            return True
        spent = self._wills[peer.id] = replace(will, armed=False)
        try:
            await self._publish(peer, will)
        except ClaudePeersError as error:
            if self._wills.get(peer.id) is spent:
                self._wills[peer.id] = will
            if isinstance(error, RateLimitedError):
                return False
            raise
        return True

    async def tidy(self) -> None:
        """Publish what is due and could not be, or whose broker ended before it did."""
        roster = self._context.roster
        waiting: set[str] = set()
        for will in list(self._wills.values()):
            peer = roster.get(will.peer_id)
            if peer is None:
                self._wills.pop(will.peer_id, None)
            elif (
                peer.presence is not Presence.PRESENT
                and peer.machine not in waiting
                and not await self.lost(peer)
            ):
                waiting.add(peer.machine)
        if waiting:
            log.warning("last wills wait for a later round: too many peers were lost at once")

    def _look_for(self, peer_id: PeerId, ended: float) -> None:
        context = self._context
        peer = context.roster.get(peer_id)
        if peer is None or context.transport.reaches(peer_id):
            return
        now = context.clock.monotonic()
        since = now - ended
        if context.roster.silent_for(peer_id, now=now) < since:
            return
        left = context.options.silence - since
        if left > 0 and liveness.runs(peer, boot=context.here.boot, alive=context.here.alive):
            # Only its connection broke: between two heartbeats there may be more than RECONNECT.
            asyncio.get_running_loop().call_later(left, self._look_for, peer_id, ended)
        else:
            context.in_background(self.lost(peer))


def will_of(peer_id: PeerId, lwt: LastWill) -> Will:
    """Return a peer's will.

    Raises:
        BadRequestError: that is no topic.
        RetainedTooLongError: the text is too long.
    """
    will = Will(peer_id=peer_id, topic=lwt.topic, text=lwt.message, qos=lwt.qos, retain=lwt.retain)
    check_will(will)
    return will
