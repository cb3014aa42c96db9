"""The part of the store's port that is about topics: subscriptions, last values, publishing."""

from collections.abc import Sequence
from typing import Protocol

from claude_peers.core.errors import MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, PeerId, Receipt, Retained


class TopicStore(Protocol):
    """Subscriptions and last values; every method is one transaction, as of `ports.Store`."""

    async def subscriptions(self) -> list[tuple[PeerId, str]]:
        """Return every peer's patterns, each peer's in the order in which it subscribed."""
        ...

    async def retained(self) -> list[Retained]:
        """Return the last values that are kept, by topic."""
        ...

    async def subscribe(
        self,
        subscription: tuple[PeerId, str],
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
    ) -> list[Receipt | MailboxFullError]:
        """Note a peer's pattern, and accept what it is given for it, as `publish` does."""
        ...

    async def unsubscribe(self, subscription: tuple[PeerId, str]) -> None:
        """Forget a peer's pattern; those of a peer that is forgotten go with it."""
        ...

    async def publish(
        self,
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
        keep: Retained | None = None,
        key: str | None = None,
    ) -> list[Receipt | MailboxFullError]:
        """Accept each draft as `accept` does; return for each a receipt, or why it was refused.

        A full mailbox refuses its own draft only; any other refusal refuses all. `keep` becomes
        its topic's last value, and with an empty text is the end of that; but not if it is `kept`
        already, for a newer value may have come since.
        """
        ...

    async def kept(self, value: Retained, key: str, *, now: float) -> bool:
        """Whether a last value was published within 10 minutes under the same key by its sender.

        Raises:
            DedupeConflictError: the key was used for another topic or text.
        """
        ...
