"""What the store in memory keeps beside peers and mail: machines, topics, last wills."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from claude_peers.core.errors import DedupeConflictError, MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.machines import Machine
from claude_peers.core.models import Draft, PeerId, Receipt, Retained
from claude_peers.core.wills import Will
from claude_peers.stores.memory_webhooks import MemoryWebhooks
from claude_peers.stores.retention import DEDUPE_WINDOW


class Beside(MemoryWebhooks, ABC):
    """Machines, topics and last wills; what is published goes to the store's `accept`."""

    def __init__(self) -> None:
        super().__init__()
        self._machines: dict[str, Machine] = {}
        self._patterns: dict[PeerId, dict[str, None]] = {}
        self._retained: dict[str, Retained] = {}
        self._kept: dict[tuple[str, str], tuple[Retained, float]] = {}
        self._wills: dict[PeerId, Will] = {}

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
        self,
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
        keep: Retained | None = None,
        key: str | None = None,
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        again = keep is not None and key is not None and await self.kept(keep, key, now=now)
        for draft in drafts:  # whatever refuses all, before anything is accepted
            await self.accepted(draft, now=now)
        results: list[Receipt | MailboxFullError] = []
        for draft in drafts:
            try:
                results.append(await self.accept(draft, limits, now=now))
            except MailboxFullError as full:
                results.append(full)
        if keep is not None and not again:
            self._retained.pop(keep.topic, None)
            if keep.text:
                self._retained[keep.topic] = keep
            if key is not None:
                self._kept[keep.from_id, key] = (keep, now)
        return results

    async def kept(self, value: Retained, key: str, *, now: float) -> bool:
        """See `broker.ports.Store`."""
        known, at = self._kept.get((value.from_id, key), (value, -DEDUPE_WINDOW))
        if at <= now - DEDUPE_WINDOW:
            return False
        if (known.topic, known.text) != (value.topic, value.text):
            raise DedupeConflictError(key)
        return True

    async def wills(self) -> list[Will]:
        """See `broker.ports.Store`."""
        return sorted(self._wills.values(), key=lambda will: will.peer_id)

    async def save_will(self, will: Will) -> None:
        """See `broker.ports.Store`."""
        self._wills[will.peer_id] = will

    async def drop_will(self, peer_id: PeerId) -> None:
        """See `broker.ports.Store`."""
        self._wills.pop(peer_id, None)

    async def publish_will(
        self,
        will: Will,
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
        keep: Retained | None,
    ) -> list[Receipt | MailboxFullError]:
        """See `broker.ports.Store`."""
        known = self._wills.get(will.peer_id)
        if known is None or not known.armed:
            return []
        self._wills[will.peer_id] = replace(known, armed=False)
        return await self.publish(drafts, limits, now=now, keep=keep)

    @abstractmethod
    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """See `broker.ports.Store`."""

    @abstractmethod
    async def accepted(self, draft: Draft, *, now: float) -> object:
        """See `broker.ports.Store`."""
