"""What the operations about topics answer, as `wire.answers` has it of the others."""

from typing import Literal, NotRequired, TypedDict

from claude_peers.core.models import Presence, State
from claude_peers.wire.answers import Done


class Unsubscribed(Done):
    """What a peer still has subscribed to."""

    topics: list[str]


class Subscribed(Unsubscribed):
    """What a peer has subscribed to now.

    Attributes:
        retained: last values that it was given.
        missed: last values for which its mailbox had no room.
    """

    retained: int
    missed: int


class Copy(TypedDict):
    """One recipient's message.

    Attributes:
        id: the recipient's.
    """

    id: str
    name: str
    presence: Presence
    message_id: int
    state: State


class NoCopy(TypedDict):
    """A recipient that did not get one, and why."""

    id: str
    name: str
    code: str
    error: str
    remedy: str


class Reached(TypedDict):
    """A peer that would get a copy."""

    id: str
    name: str


class Published(Done):
    """What became of a broadcast.

    Attributes:
        delivered_to: ids of those for whom it is stored, as agentmesh has it.
        sent_to: how many they are, as claude-peers-mcp PR 22 has it.
        preview: whom it would reach; nothing was sent. Send it again with `confirm` set to how
            many they are.
        duplicate: all of it was stored before, under the same key.
    """

    delivered_to: list[str]
    sent_to: int
    copies: list[Copy]
    refused: list[NoCopy]
    preview: NotRequired[list[Reached]]
    duplicate: NotRequired[Literal[True]]
