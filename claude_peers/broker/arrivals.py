"""Who waits for a message to come, by mailbox."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from claude_peers.core.models import PeerId


class Arrivals(dict[PeerId, set["asyncio.Future[None]"]]):
    """The futures of those that wait; a mailbox for which nobody waits is not in it."""

    @contextmanager
    def of(self, owner: PeerId) -> Iterator["asyncio.Future[None]"]:
        """Give a future that is done once a message has come for a peer."""
        arrival = asyncio.get_running_loop().create_future()
        waiting = self.setdefault(owner, set())
        waiting.add(arrival)
        try:
            yield arrival
        finally:
            waiting.discard(arrival)
            if not waiting:
                self.pop(owner, None)

    def tell(self, owner: PeerId) -> None:
        """Tell everybody who waits for one mailbox that a message has come."""
        for arrival in self.get(owner, ()):
            if not arrival.done():
                arrival.set_result(None)

    def stop(self) -> None:
        """Let nobody wait any longer: this broker hands over."""
        for owner in self:
            self.tell(owner)
