"""`POST /hook/TOPIC`: publishing for whatever can post, with a token that allows nothing else.

A sender shows the token, or signs the body with it as GitHub does. A signature can be judged only
once the body is there: `gateway.guard` lets such a post in, and `publish` refuses what is forged.
"""

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from claude_peers.broker.broker import Broker
from claude_peers.core.webhooks import HookToken
from claude_peers.gateway.errors import Refusal
from claude_peers.gateway.framing import Head
from claude_peers.wire import codec, hook_signature

if TYPE_CHECKING:
    from claude_peers.wire.webhook_answers import Hooked

PREFIX: Final = "/hook/"
KEYS: Final = ("webhook-id", "idempotency-key", "x-github-delivery")
"""Headers by which senders mark a post that they repeat."""
_SIGNATURE: Final = hook_signature.HEADER.lower()
_TYPES: Final = ("application/json", "application/x-www-form-urlencoded")


def is_hook(head: Head) -> bool:
    """Whether a request is for a hook."""
    return head.path.startswith(PREFIX)


def admitted(broker: Broker, head: Head, token_hash: str | None) -> HookToken | None:
    """Return the token that a request for a hook shows, if it may publish to the topic."""
    return broker.hooks.admit(token_hash, _topic(head)) if token_hash and is_hook(head) else None


def is_signed(broker: Broker, head: Head, token_hash: str | None) -> bool:
    """Whether a request is for a hook, signed, and shows no token, where signatures are taken."""
    given = is_hook(head) and token_hash is None and _SIGNATURE in head.headers
    return given and broker.hooks.take_signatures()


async def publish(broker: Broker, token_hash: str | None, head: Head, body: bytes) -> bytes:
    """Publish a post's body as text; return what is answered, with status 202.

    Raises:
        ClaudePeersError: it is refused.
    """
    token = admitted(broker, head, token_hash) or _signer(broker, head, body)
    _check_type(head)
    key = next((head.headers[each] for each in KEYS if each in head.headers), "")
    text = body.decode("utf-8", "replace")
    published = await broker.hooks.publish(token, _topic(head), text, key=key)
    answer: Hooked = {
        "ok": True,
        "messages": len(published.copies),
        "refused": len(published.refused),
    }
    return codec.dumps(answer)


def _signer(broker: Broker, head: Head, body: bytes) -> HookToken:
    token = broker.hooks.signer(_topic(head), head.headers.get(_SIGNATURE, ""), body)
    if token is None:
        raise Refusal(
            401,
            "invalid_signature",
            fact="No hook for this topic has this token, or made this signature of the body",
            remedy=(
                "Give the sender the token that `claude-peers hook-token TOPIC --signed` prints as "
                f"its secret: {hook_signature.HEADER} is the HMAC-SHA256 of the body, which may "
                "not be changed on its way."
            ),
        )
    return token


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
