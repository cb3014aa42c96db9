"""What the store promises about webhooks; part of the Store port."""

from typing import Protocol

from claude_peers.core.models import PeerId
from claude_peers.core.webhooks import HookToken, Webhook


class WebhookStore(Protocol):
    """Where peers have their mail posted to, and who may publish by a post.

    Each method is one transaction, as those of `broker.ports.Store`.
    """

    async def webhooks(self) -> list[Webhook]:
        """Return every webhook, by peer; those of a peer that is forgotten go with it."""
        ...

    async def save_webhook(self, webhook: Webhook) -> None:
        """Insert or replace a peer's webhook."""
        ...

    async def drop_webhook(self, peer_id: PeerId) -> None:
        """Forget a peer's webhook."""
        ...

    async def hook_tokens(self) -> list[HookToken]:
        """Return every hook token, by name."""
        ...

    async def save_hook_token(self, token: HookToken) -> None:
        """Insert or replace the hook token of a name."""
        ...

    async def drop_hook_token(self, name: str) -> None:
        """Forget the hook token of a name."""
        ...
