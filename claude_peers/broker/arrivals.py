"""Who waits for a message to come, by mailbox."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from claude_peers.core.models import Caller, PeerId


class Arrivals(dict[PeerId, dict["asyncio.Future[None]", Caller | None]]):
    """The futures of those that wait; a mailbox for which nobody waits is not in it."""

    @contextmanager
    def of(self, owner: PeerId, caller: Caller | None = None) -> Iterator["asyncio.Future[None]"]:
        """Give a future that is done once a message has come for a peer.

        It is cancelled if the `caller` who waits has gone (see `gone`).
        """
        arrival = asyncio.get_running_loop().create_future()
        waiting = self.setdefault(owner, {})
        waiting[arrival] = caller
        try:
            yield arrival
        finally:
            waiting.pop(arrival)
            if not waiting:
                self.pop(owner, None)

    def tell(self, owner: PeerId) -> None:
        """Tell everybody who waits for one mailbox that a message has come."""
        for arrival in self.get(owner, ()):
            if not arrival.done():
                arrival.set_result(None)

    def gone(self, caller: Caller) -> None:
        """Let a caller wait no longer, whose connection has ended."""
        for waiting in self.values():
            for arrival, waits in waiting.items():
                if waits is caller:
                    arrival.cancel()

    def stop(self) -> None:
        """Let nobody wait any longer: this broker hands over."""
        for owner in self:
            self.tell(owner)
