"""`POST /hook/TOPIC`: publishing for whatever can post, with a token that allows nothing else."""

from typing import Final
from urllib.parse import unquote

from claude_peers.broker.broker import Broker
from claude_peers.core.webhooks import HookToken
from claude_peers.gateway.errors import Refusal
from claude_peers.gateway.framing import Head
from claude_peers.wire import codec

PREFIX: Final = "/hook/"
_KEYS: Final = ("webhook-id", "idempotency-key", "x-github-delivery")
"""Headers by which senders mark a post that they repeat."""
_TYPES: Final = ("application/json", "application/x-www-form-urlencoded")


def is_hook(head: Head) -> bool:
    """Whether a request is for a hook."""
    return head.path.startswith(PREFIX)


def admitted(broker: Broker, head: Head, token_hash: str | None) -> HookToken | None:
    """Return the token that a request for a hook shows, if it may publish to the topic."""
    return broker.hooks.admit(token_hash, _topic(head)) if token_hash and is_hook(head) else None


async def publish(broker: Broker, token_hash: str | None, head: Head, body: bytes) -> bytes:
    """Publish a post's body as text; return what is answered, with status 202.

    Raises:
        ClaudePeersError: it is refused.
    """
    token = admitted(broker, head, token_hash)
    assert token is not None  # noqa: S101 - the guard lets in nobody else
    _check_type(head)
    key = next((head.headers[each] for each in _KEYS if each in head.headers), "")
    text = body.decode("utf-8", "replace")
    published = await broker.hooks.publish(token, _topic(head), text, key=key)
    answer = {"ok": True, "messages": len(published.copies), "refused": len(published.refused)}
    return codec.dumps(answer)


def _topic(head: Head) -> str:
    return unquote(head.path.removeprefix(PREFIX))


def _check_type(head: Head) -> None:
    given = head.headers.get("content-type", "").partition(";")[0].strip(" \t").lower()
    if given in _TYPES or given.endswith("+json") or given.startswith("text/"):
        return
    raise Refusal(
        415,
        "not_text",
        fact="A hook takes JSON or text",
        remedy="Send the header Content-Type: application/json, or text/plain.",
    )
