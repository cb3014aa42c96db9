"""What became of messages: their stories, the dead ones, and whose they are."""

from claude_peers.broker.context import Context
from claude_peers.core.errors import MessageNotFoundError, SecretRequiredError
from claude_peers.core.models import Caller, Message, PeerId, Story

DEAD_LETTERS = 200
"""Dead letters in one answer."""


class Fates:
    """What became of messages.

    Args:
        context: what the broker works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def owners(self, caller: Caller, ids: tuple[int, ...]) -> dict[PeerId, tuple[int, ...]]:
        """Return whose mailboxes messages are in, for acknowledgements that do not say.

        Raises:
            NotYourPeerError: the caller may not act for one of these.
        """
        found: dict[PeerId, tuple[int, ...]] = {}
        for told in await self._context.store.stories(ids):
            found[told.message.to_id] = (*found.get(told.message.to_id, ()), told.message.id)
        for owner in found:
            self._context.mine(caller, owner)
        return found

    async def story(self, caller: Caller, message_id: int) -> Story:
        """Return what happened to a message.

        Raises:
            MessageNotFoundError: there is none, or the caller has no part in it.
        """
        found = await self._context.store.stories([message_id])
        if not (found and self._has_part(caller, found[0].message)):
            raise MessageNotFoundError(message_id)
        return found[0]

    def _has_part(self, caller: Caller, message: Message) -> bool:
        ends = (message.from_id, message.to_id)
        return caller.knows_secret or any(self._context.concerns(caller, each) for each in ends)

    async def dead_letters(self, caller: Caller, peer_id: str, *, limit: int) -> list[Message]:
        """Return the dead letters of a peer's mailbox, or of all for the user, newest first.

        Raises:
            SecretRequiredError: it asks for those of all and is not known to be this user.
        """
        owner = PeerId(peer_id) if peer_id else None
        if not caller.knows_secret:
            if owner is None:
                raise SecretRequiredError
            self._context.mine(caller, owner)
        return await self._context.store.dead_letters(owner, limit=max(1, min(limit, DEAD_LETTERS)))
