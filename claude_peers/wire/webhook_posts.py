"""The posts of outgoing webhooks: path, headers and body in each format, signed.

Every post carries the headers of Standard Webhooks 1.0: an id that is the same each time the
message is posted, so that receivers can tell a repeated one; the time; and
`v1,BASE64(HMAC-SHA256(secret, ID.TIME.BODY))`.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from claude_peers.core.models import Message, Peer
from claude_peers.core.webhooks import Format, Webhook, read_target
from claude_peers.wire import codec
from claude_peers.wire.agentmesh import retries
from claude_peers.wire.envelope import envelope
from claude_peers.wire.records import kept_view

SECRET: Final = "whsec_"  # noqa: S105 - the specification's mark of one
SECRET_BYTES: Final = 32
AGENT_PATH: Final = "/hooks/agent"
"""Where OpenClaw takes a turn for an agent (docs/automation/cron-jobs/webhooks.md there)."""
EVENT: Final = "claude_peers.message"


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP request: what follows the target's authority, headers, and the body."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def make_secret(random: bytes) -> str:
    """Return a secret of `SECRET_BYTES` random bytes as receivers are given it."""
    return SECRET + base64.b64encode(random).decode()


def sign(secret: str, uid: str, at: int, body: bytes) -> str:
    """Return the value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(SECRET))
    mac = hmac.new(key, f"{uid}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


def make_post(
    webhook: Webhook,
    message: Message,
    sender: Peer | None,
    *,
    signature: str | None,
    deliveries: int,
    now: float,
) -> Post:
    """Return the post of a message at a time (seconds since the epoch).

    Agentmesh's body carries `signature`, the message's own, made with the fleet's secret, and tells
    how often a message is posted again, of `deliveries` posts in all.

    Raises:
        WebhookRefusedError: the webhook's URL is none.
    """
    target = read_target(webhook.url)
    if webhook.format is Format.AGENTMESH:
        told = _agentmesh(message, signature, deliveries)
    else:
        told = _BODIES[webhook.format](message, sender)
    body = codec.dumps(told)
    at = int(now)
    headers = [
        ("Host", target.authority),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("User-Agent", "claude-peers"),
        ("Connection", "close"),
        ("webhook-id", message.uid),
        ("webhook-timestamp", str(at)),
        ("webhook-signature", sign(webhook.secret, message.uid, at, body)),
    ]
    path = target.path
    if webhook.format is Format.OPENCLAW:
        headers.append(("Idempotency-Key", message.uid))
        path = AGENT_PATH if path == "/" else path
    if webhook.token:
        headers.append(("Authorization", f"Bearer {webhook.token}"))
    return Post(path, tuple(headers), body)


def retry_after(value: str, *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, None if it says nothing."""
    if value.isascii() and value.isdecimal() and len(value) < 10:  # noqa: PLR2004 - 30 years
        return float(value)
    from email.utils import parsedate_to_datetime  # much to load for what hardly any receiver sends

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _agentmesh(message: Message, signature: str | None, deliveries: int) -> dict[str, Any]:
    """Return agentmesh 0.4's body: the row of its database (broker.ts, deliverViaWebhook)."""
    row = {
        "id": message.id,
        "from_id": message.from_id,
        "to_id": message.to_id,
        "text": message.text,
        "topic": message.topic,
        "qos": message.qos,
        "sent_at": message.sent_at,
        "expires_at": _iso(message.expires_at),
        "ack_deadline": None,
        "retry_count": message.deliveries,
        "max_retries": retries(deliveries),
        "delivered": 0,
        "signature": signature,
    }
    more = {
        "uid": message.uid,
        "verified": message.verified,
        "reply_to": message.reply_to,
        "redelivered": message.deliveries or None,
    }
    row |= {name: value for name, value in more.items() if value is not None}
    return {"type": "agentmesh.message", "message": row}


def _standard(message: Message, sender: Peer | None) -> dict[str, Any]:
    """Return a flat body: what a prompt template can name, `prompt` being fit for a model."""
    view = kept_view(message, sender)
    return {
        "type": EVENT,
        "event_type": EVENT,
        "timestamp": message.sent_at,
        "from": sender.name if sender else message.from_id,
        **view,
        "prompt": _for_a_model(message, sender),
    }


def _openclaw(message: Message, sender: Peer | None) -> dict[str, Any]:
    return {
        "message": _for_a_model(message, sender),
        "name": "claude-peers",
        "deliver": False,
    }


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _for_a_model(message: Message, sender: Peer | None) -> str:
    return envelope(kept_view(message, sender), None, limit=None)


_BODIES: Final = {
    Format.STANDARD: _standard,
    Format.OPENCLAW: _openclaw,
}
