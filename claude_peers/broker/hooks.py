"""Use cases about incoming webhooks: who may publish by a post, and publishing for them.

A hook token belongs to no peer. What comes with it is published as `hook:NAME`, which no peer's id
can be, and marked as not verified: whoever has the token wrote it. A token is kept as a digest, but
for those that the user made for senders that sign: no digest tells whether a signature is right.
"""

import secrets
from dataclasses import dataclass

from claude_peers.broker.broadcasts import Broadcasts, Published
from claude_peers.broker.context import Context
from claude_peers.broker.registration import hash_token
from claude_peers.core import identity
from claude_peers.core.errors import NotPossibleError
from claude_peers.core.limits import DEDUPE_KEY, NAME
from claude_peers.core.models import Process
from claude_peers.core.text import one_line
from claude_peers.core.topics import check_pattern, matches
from claude_peers.core.webhooks import HOOK_TOKENS, HookToken, HookTokenNotFoundError
from claude_peers.wire import hook_signature
from claude_peers.wire.topics import BroadcastRequest


@dataclass(frozen=True, slots=True)
class HookCaller:
    """Whoever shows a hook token (see `core.models.Caller`): the user has let it publish."""

    source: str
    token_hash: str | None = None
    knows_secret: bool = False
    machine: str = ""
    traceable: bool = False

    def is_user_of(self, machine: str) -> bool:
        """See `core.models.Caller`."""
        return machine == self.machine

    def owns(self, process: Process) -> bool:
        """See `core.models.Caller`."""
        del process
        return False

    def proves(self, answer: str) -> bool:
        """See `core.models.Caller`."""
        del answer
        return False


class Hooks:
    """Every hook token.

    Args:
        context: what the broker works with.
        broadcasts: publishes.
    """

    def __init__(self, context: Context, broadcasts: Broadcasts) -> None:
        self._context = context
        self._broadcasts = broadcasts
        self._tokens: dict[str, HookToken] = {}

    async def load(self) -> None:
        """Read all tokens."""
        self._tokens = {each.name: each for each in await self._context.store.hook_tokens()}

    def all(self) -> list[HookToken]:
        """Return every token, by name."""
        return sorted(self._tokens.values(), key=lambda each: each.name)

    async def make(self, name: str, topic: str, *, signed: bool = False) -> tuple[HookToken, str]:
        """Return a new token of a name, and itself; an earlier one is void.

        Args:
            name: as whom it publishes.
            topic: what it may publish to.
            signed: whether posts may also be signed with it.

        Raises:
            NotPossibleError: that is no name, or no topic or pattern.
            NotPossibleError: there are too many.
        """
        if not identity.is_name(name):
            raise NotPossibleError(
                f"{one_line(name, NAME)!r} is no name",
                "A name has up to 64 of a-z, 0-9, dot, dash and underscore, a letter or digit "
                "first.",
            )
        check_pattern(topic)
        if name not in self._tokens and len(self._tokens) >= HOOK_TOKENS:
            raise NotPossibleError(
                f"There are {HOOK_TOKENS} hook tokens", "Revoke one: claude-peers hook-token."
            )
        token = secrets.token_urlsafe(32)
        made = HookToken(
            name=name,
            topic=topic,
            token_hash=hash_token(token),
            secret=token if signed else "",
            created_at=self._context.at(),
        )
        await self._context.store.save_hook_token(made)
        self._tokens[name] = made
        return made, token

    async def revoke(self, name: str) -> HookToken:
        """Let a token count no more.

        Raises:
            HookTokenNotFoundError: there is none of that name.
        """
        token = self._tokens.get(name)
        if token is None:
            raise HookTokenNotFoundError(one_line(name, NAME))
        await self._context.store.drop_hook_token(name)
        self._tokens.pop(name, None)
        return token

    def admit(self, token_hash: str | None, topic: str) -> HookToken | None:
        """Return the token of a hash if it is one that may publish to a topic."""
        for token in self._tokens.values():
            if token.token_hash == token_hash and matches(token.topic, topic):
                return token
        return None

    def knows(self, token_hash: str | None) -> bool:
        """Whether a hash is that of a token, for whatever topic."""
        return any(token.token_hash == token_hash for token in self._tokens.values())

    def take_signatures(self) -> bool:
        """Whether there is a token that posts may be signed with."""
        return any(token.secret for token in self._tokens.values())

    def signer(self, topic: str, signature: str, body: bytes) -> HookToken | None:
        """Return the token that a body is signed with if it may publish to a topic."""
        for token in self._tokens.values():
            if (
                token.secret
                and matches(token.topic, topic)
                and hook_signature.verify(token.secret, body, signature)
            ):
                return token
        return None

    async def publish(self, token: HookToken, topic: str, text: str, *, key: str = "") -> Published:
        """Publish a post's body; one that comes again under the same key is the same.

        Raises:
            NotPossibleError: that is no topic to publish to.
            RateLimitedError: too much comes with this token.
            TextTooLongError: the text is too long.
        """
        author = f"hook:{token.name}"
        request = BroadcastRequest(
            text=text, from_id=author, topic=topic, dedupe_key=key[:DEDUPE_KEY] or None
        )
        return await self._broadcasts.send(HookCaller(author), request)
