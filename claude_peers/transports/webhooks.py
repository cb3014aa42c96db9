"""Posts mail to peers that have a webhook: one message at a time for each, in order.

A peer whose receiver fails waits, alone, and longer each time; the others go on meanwhile. At most
`AT_ONCE` posts are on their way; each is cut after `core.webhooks.WITHIN`. Everything here runs on
the event loop and waits for sockets only, so that a receiver that hangs holds up nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import randbelow

from claude_peers.broker.ports import Clock
from claude_peers.broker.webhooks import Errand, Webhooks
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.models import Message, PeerId
from claude_peers.core.webhooks import Outcome, pause

log = logging.getLogger(__name__)

AT_ONCE = 32
STORE_AGAIN = 1.0
"""Seconds until a database that failed is asked again."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a post.

    Attributes:
        told: what came back, in a few words.
        asked: seconds the receiver asked to be left alone, None if it did not.
    """

    outcome: Outcome
    told: str
    asked: float | None = None


Send = Callable[[Errand], Awaitable[Result]]


def _chance() -> float:
    """Draw from 0 to 1: the receivers of one machine must not all be tried again at once."""
    return randbelow(1 << 20) / (1 << 20)


class _Round:
    """The posts to one peer, as long as there are any."""

    def __init__(self) -> None:
        self.wanted = True
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None]


class WebhookPosts:
    """The Transport port over webhooks.

    Args:
        webhooks: who has one.
        clock: what time it is.
        send: posts one message; what it raises is a fault of ours, and a post that failed.
        chance: draws from 0 to 1, for pauses.
    """

    name = "webhooks"

    def __init__(
        self,
        webhooks: Webhooks,
        clock: Clock,
        send: Send,
        *,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._send = send
        self._chance = chance
        self._rounds: dict[PeerId, _Round] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._stopped = False

    def start(self) -> None:
        """Post what waits: an earlier broker may have left something."""
        self._webhooks.changed = self._changed
        for webhook in self._webhooks.all():
            self.look_again(webhook.peer_id)

    async def stop(self) -> None:
        """Cut what is on its way; it stays leased, for the next broker."""
        self._stopped = True
        tasks = [each.task for each in self._rounds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reaches(self, peer_id: PeerId) -> bool:
        """See `broker.ports.Transport`."""
        return self._webhooks.reaches(peer_id)

    def deliver(self, message: Message) -> None:
        """See `broker.ports.Transport`."""
        self.look_again(message.to_id)

    def settled(self, peer_id: PeerId, ids: list[int]) -> None:
        """See `broker.ports.Transport`; what was read elsewhere is not taken any more."""

    def look_again(self, peer_id: PeerId) -> None:
        """See `broker.ports.Transport`."""
        if self._stopped or self._webhooks.get(peer_id) is None:
            return
        going = self._rounds.get(peer_id)
        if going is not None:
            going.wanted = True
            return
        going = self._rounds[peer_id] = _Round()
        going.task = asyncio.ensure_future(self._go(peer_id, going))

    def dismiss(self, peer_id: PeerId) -> None:
        """See `broker.ports.Transport`; a webhook has no connection to end."""

    def _changed(self, peer_id: PeerId) -> None:
        """Try a new address at once."""
        if (going := self._rounds.get(peer_id)) is not None:
            going.changed.set()
        self.look_again(peer_id)

    async def _go(self, peer_id: PeerId, going: _Round) -> None:
        try:
            while going.wanted:
                going.wanted = False
                await self._empty(peer_id, going)
        except Exception:
            # The next message or broker tries again; a peer's round is nobody else's.
            log.exception("the posts to %s stopped", peer_id)
        finally:
            del self._rounds[peer_id]

    async def _empty(self, peer_id: PeerId, going: _Round) -> None:
        """Post whatever a mailbox has."""
        while True:
            going.changed.clear()  # before the post: it may be given another address meanwhile
            try:
                wait = await self._one(peer_id)
            except ClaudePeersError as error:
                log.warning("the posts to %s wait: %s", peer_id, error)
                wait = None if self._stopped else STORE_AGAIN
            if wait is None:
                return
            if wait:
                await _sleep(wait, going.changed)

    async def _one(self, peer_id: PeerId) -> float | None:
        """Post one message; return the seconds to wait then, None if there was none.

        Raises:
            StoreError: the database failed.
        """
        async with self._room:
            errand = await self._webhooks.next(peer_id)
            if errand is None:
                return None
            result = await self._sent(errand)
        await self._settle(errand, result)
        if result.outcome is Outcome.DELIVERED:
            return 0.0
        log.info("message %d was not taken: %s", errand.message.id, result.told)
        failures = errand.failures + 1
        return pause(failures, result.outcome, chance=self._chance(), asked=result.asked)

    async def _sent(self, errand: Errand) -> Result:
        try:
            return await self._send(errand)
        except Exception:
            # Else its message would stay leased, and hold up all that follow, until a take-over.
            log.exception("the post of message %d failed", errand.message.id)
            return Result(Outcome.RETRY, "an error of the broker's own; its log has it")

    async def _settle(self, errand: Errand, result: Result) -> None:
        """Note what came of a post, however long the database fails: it is not posted again."""
        while True:
            try:
                await self._webhooks.came_of(errand, result.outcome, result.told)
            except ClaudePeersError as error:
                if self._stopped:
                    raise
                log.warning("message %d was posted, but: %s", errand.message.id, error)
                await asyncio.sleep(STORE_AGAIN)
            else:
                return


async def _sleep(seconds: float, unless: asyncio.Event) -> None:
    """Wait, but not once another address was given."""
    try:
        async with asyncio.timeout(seconds):
            await unless.wait()
    except TimeoutError:
        return
