"""What the store in memory keeps about webhooks."""

from claude_peers.core.models import PeerId
from claude_peers.core.webhooks import HookToken, Webhook


class MemoryWebhooks:
    """Webhooks by peer, hook tokens by name."""

    def __init__(self) -> None:
        self._webhooks: dict[PeerId, Webhook] = {}
        self._hook_tokens: dict[str, HookToken] = {}

    async def webhooks(self) -> list[Webhook]:
        """See `broker.webhook_store.WebhookStore`."""
        return sorted(self._webhooks.values(), key=lambda webhook: webhook.peer_id)

    async def save_webhook(self, webhook: Webhook) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        self._webhooks[webhook.peer_id] = webhook

    async def drop_webhook(self, peer_id: PeerId) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        self._webhooks.pop(peer_id, None)

    async def hook_tokens(self) -> list[HookToken]:
        """See `broker.webhook_store.WebhookStore`."""
        return sorted(self._hook_tokens.values(), key=lambda token: token.name)

    async def save_hook_token(self, token: HookToken) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        self._hook_tokens[token.name] = token

    async def drop_hook_token(self, name: str) -> None:
        """See `broker.webhook_store.WebhookStore`."""
        self._hook_tokens.pop(name, None)
