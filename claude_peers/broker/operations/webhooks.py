"""Requests about webhooks: where mail is posted to, and who may publish by a post."""

from typing import TYPE_CHECKING, Any

from claude_peers.broker.operations.registry import operation
from claude_peers.core.models import Caller
from claude_peers.wire.records import PeerRequest
from claude_peers.wire.webhooks import HookTokenRequest, NamedRequest, SetWebhookRequest

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import webhook_answers


@operation("/webhook/set", SetWebhookRequest)
async def set_webhook(
    broker: "Broker", caller: Caller, request: SetWebhookRequest
) -> "webhook_answers.WebhookSet":
    """Have a peer's mail posted to an address."""
    peer, webhook = await broker.webhooks.set(
        caller, request.id, request.url, format_name=request.format, token=request.token
    )
    return {
        "ok": True,
        "id": peer.id,
        "name": peer.name,
        "format": webhook.format,
        "webhook_secret": webhook.secret,
    }


@operation("/webhook/remove", PeerRequest)
async def remove_webhook(
    broker: "Broker", caller: Caller, request: PeerRequest
) -> "webhook_answers.WebhookRemoved":
    """Post a peer's mail no more; it waits in the mailbox."""
    peer = await broker.webhooks.remove(caller, request.id)
    return {"ok": True, "id": peer.id, "name": peer.name}


@operation("/admin/webhooks", NamedRequest, user=True)
async def webhooks(
    broker: "Broker", caller: Caller, request: NamedRequest
) -> "webhook_answers.Webhooks":
    """List all webhooks; needs proof of the user's secret."""
    del caller, request
    views: list[Any] = []
    for each in broker.webhooks.all():
        peer = broker.roster.get(each.peer_id)
        views.append(
            {
                "id": each.peer_id,
                "name": peer.name if peer else None,
                "url": each.url,
                "format": each.format,
                "route": peer.route if peer else "",
                "problem": each.problem,
            }
        )
    return {"webhooks": views}


@operation("/admin/hook-token", HookTokenRequest, user=True)
async def hook_token(
    broker: "Broker", caller: Caller, request: HookTokenRequest
) -> "webhook_answers.HookTokenMade":
    """Let whoever has a new token publish by `POST /hook/TOPIC`; needs the user's secret."""
    del caller
    made, token = await broker.hooks.make(request.name, request.topic, signed=request.signed)
    return {"ok": True, "name": made.name, "topic": made.topic, "token": token}


@operation("/admin/hook-tokens", NamedRequest, user=True)
async def hook_tokens(
    broker: "Broker", caller: Caller, request: NamedRequest
) -> "webhook_answers.HookTokens":
    """List the hook tokens, themselves left out; needs proof of the user's secret."""
    del caller, request
    views: list[Any] = [
        {
            "name": each.name,
            "topic": each.topic,
            "signed": bool(each.secret),
            "created_at": each.created_at,
        }
        for each in broker.hooks.all()
    ]
    return {"hook_tokens": views}


@operation("/admin/revoke-hook-token", NamedRequest, user=True)
async def revoke_hook_token(
    broker: "Broker", caller: Caller, request: NamedRequest
) -> "webhook_answers.HookTokenRevoked":
    """Let a hook token count no more; needs proof of the user's secret."""
    del caller
    token = await broker.hooks.revoke(request.name)
    return {"ok": True, "name": token.name, "topic": token.topic}
