"""How the API document describes what is no operation: posts to a hook (`gateway.hooks`)."""

from typing import Final

from claude_peers.gateway.hooks import KEYS, PREFIX
from claude_peers.wire import hook_signature
from claude_peers.wire.schema import Schema

PATH: Final = PREFIX + "{topic}"
SECURITY: Final[dict[str, Schema]] = {
    "hook": {
        "type": "http",
        "scheme": "bearer",
        "description": "A hook's token, from `claude-peers hook-token`; it opens nothing else.",
    },
    "hook-signature": {
        "type": "apiKey",
        "in": "header",
        "name": hook_signature.HEADER,
        "description": (
            "`sha256=` and the HMAC-SHA256 of the body, in hexadecimal, under a token of "
            "`claude-peers hook-token --signed`; as GitHub signs."
        ),
    },
}
"""Either of them is needed."""


def described(refusals: Schema, published: Schema) -> Schema:
    """Return the operation; `refusals` by status, and the answer to what was `published`."""
    return {
        "operationId": "hook",
        "summary": "Publish to a topic for whatever can post.",
        "description": (
            "The body becomes a message to each subscriber, from `hook:NAME` and not verified. "
            "Any text will do, whatever JSON says. See docs/webhooks.md."
        ),
        "tags": ["webhooks"],
        "security": [{name: []} for name in SECURITY],
        "parameters": [
            {
                "name": "topic",
                "in": "path",
                "required": True,
                "description": "what to publish to; its slashes may be written as they are",
                "schema": {"type": "string", "minLength": 1},
            },
            *map(_key, KEYS),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {}},
                "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
                "text/plain": {"schema": {"type": "string"}},
            },
        },
        "responses": {"202": published, **refusals},
    }


def _key(name: str) -> Schema:
    return {
        "name": name,
        "in": "header",
        "description": "what a repeated post is known by; the first of these headers counts",
        "schema": {"type": "string"},
    }
