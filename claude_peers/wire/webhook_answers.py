"""What requests about webhooks answer (see `wire.answers`)."""

from typing import Literal, TypedDict

from claude_peers.core.webhooks import Format


class WebhookRemoved(TypedDict):
    """Whose mail is posted no more."""

    ok: Literal[True]
    id: str
    name: str


class WebhookSet(WebhookRemoved):
    """Whose mail is posted from now on.

    Attributes:
        webhook_secret: `whsec_` and base64, what posts are signed with.
    """

    format: Format
    webhook_secret: str


class Webhook(TypedDict):
    """A peer's webhook.

    Attributes:
        route: whether posts arrive, as the roster shows it.
        problem: why nothing is posted any more, "" while it is.
    """

    id: str
    name: str | None
    url: str
    format: Format
    route: str
    problem: str


class Webhooks(TypedDict):
    """All webhooks, by peer."""

    webhooks: list[Webhook]


class HookTokenRevoked(TypedDict):
    """Whose token counts no more."""

    ok: Literal[True]
    name: str
    topic: str


class HookTokenMade(HookTokenRevoked):
    """A new hook token, shown this once."""

    token: str


class HookToken(TypedDict):
    """A hook token, itself left out.

    Attributes:
        signed: whether posts may also be signed with it.
        created_at: ISO 8601, UTC.
    """

    name: str
    topic: str
    signed: bool
    created_at: str


class HookTokens(TypedDict):
    """All hook tokens, by name."""

    hook_tokens: list[HookToken]


class Hooked(TypedDict):
    """What became of a post to `/hook/TOPIC`.

    Attributes:
        messages: how many mailboxes it went to.
        refused: how many were full.
    """

    ok: Literal[True]
    messages: int
    refused: int
