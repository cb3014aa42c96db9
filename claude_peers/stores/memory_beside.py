"""What the store in memory keeps beside peers and mail: machines, subscriptions, last values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from claude_peers.core.errors import MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.machines import Machine
from claude_peers.core.models import Draft, PeerId, Receipt, Retained


class Beside(ABC):
    """Machines, subscriptions and last values; what is published goes to the store's `accept`."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._patterns: dict[PeerId, dict[str, None]] = {}
        self._retained: dict[str, Retained] = {}

    async def machines(self) -> list[Machine]:
        """See `broker.ports.Store`."""
        return sorted(self._machines.values(), key=lambda machine: machine.name)

    async def save_machine(self, machine: Machine) -> None:
        """See `broker.ports.Store`."""
        self._machines[machine.name] = machine

    async def subscriptions(self) -> list[tuple[PeerId, str]]:
        """See `broker.ports.Store`."""
        return [(peer_id, each) for peer_id, own in self._patterns.items() for each in own]

    async def retained(self) -> list[Retained]:
        """See `broker.ports.Store`."""
        return sorted(self._retained.values(), key=lambda value: value.topic)

    async def subscribe(
        self,
        subscription: tuple[PeerId, str],
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        peer_id, pattern = subscription
        self._patterns.setdefault(peer_id, {})[pattern] = None
        return await self.publish(drafts, limits, now=now)

    async def unsubscribe(self, subscription: tuple[PeerId, str]) -> None:
        """See `broker.ports.Store`."""
        peer_id, pattern = subscription
        self._patterns.get(peer_id, {}).pop(pattern, None)

    async def publish(
        self, drafts: Sequence[Draft], limits: Limits, *, now: float, keep: Retained | None = None
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        for draft in drafts:  # whatever refuses all, before anything is accepted
            await self.accepted(draft, now=now)
        results: list[Receipt | MailboxFullError] = []
        for draft in drafts:
            try:
                results.append(await self.accept(draft, limits, now=now))
            except MailboxFullError as full:
                results.append(full)
        if keep is not None:
            self._retained.pop(keep.topic, None)
            if keep.text:
                self._retained[keep.topic] = keep
        return results

    @abstractmethod
    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """See `broker.ports.Store`."""

    @abstractmethod
    async def accepted(self, draft: Draft, *, now: float) -> object:
        """See `broker.ports.Store`."""
