"""The two ports of the broker: where mail is kept, and how a peer is reached unasked.

The docstrings state promises, not types. `tests/contract/` holds every implementation to them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from claude_peers.broker.topic_store import TopicStore
from claude_peers.broker.webhook_store import WebhookStore
from claude_peers.core.delivery import Event
from claude_peers.core.errors import MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.machines import Machine
from claude_peers.core.models import (
    Draft,
    Ledger,
    Message,
    Peer,
    PeerId,
    Process,
    Receipt,
    Retained,
    Story,
)
from claude_peers.core.wills import Will


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """How much unread mail a peer has: messages, and bytes of text."""

    unread: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What to hand out, and what became of the hand-out before.

    Attributes:
        seen: messages of the earlier hand-out that arrived.
        returned: messages of the earlier hand-out that did not.
        exclude: messages not to hand out now.
        limit: how many at most; 0 is all.
        via: by what means, for the messages' stories.
    """

    seen: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    exclude: tuple[int, ...] = ()
    limit: int = 0
    via: str = "poll"


class Store(TopicStore, WebhookStore, Protocol):
    """Durable state: peers, messages, other machines and who leads.

    Every method is one transaction: it has happened, durably, when it returns, or not at all
    when it raises `StoreError` or `FencedError`. Methods called one after the other without
    awaiting in between take effect in that order.
    """

    deliveries: int
    """How often a message is handed out without evidence; after that it is dead."""

    async def take_office(self, leader: Process, *, now: float) -> int:
        """Make `leader` the only writer and return its epoch, larger than any before.

        Leases of earlier epochs end: their messages are queued again. From here on every write
        of an earlier leader raises `FencedError`.
        """
        ...

    async def peers(self) -> list[Peer]:
        """Return every known peer, also those away and departed, in order of registration."""
        ...

    async def save_peer(self, peer: Peer) -> None:
        """Insert or replace a peer."""
        ...

    async def forget_peers(self, ids: Iterable[PeerId]) -> None:
        """Delete the rows of peers; their mail stays until it expires."""
        ...

    async def machines(self) -> list[Machine]:
        """Return every machine that was ever invited, by name."""
        ...

    async def save_machine(self, machine: Machine) -> None:
        """Insert or replace a machine."""
        ...

    async def wills(self) -> list[Will]:
        """Return every last will; those of a peer that is forgotten go with it."""
        ...

    async def save_will(self, will: Will) -> None:
        """Insert or replace a peer's last will."""
        ...

    async def drop_will(self, peer_id: PeerId) -> None:
        """Forget a peer's last will."""
        ...

    async def publish_will(
        self,
        will: Will,
        drafts: Sequence[Draft],
        limits: Limits,
        *,
        now: float,
        keep: Retained | None,
    ) -> list[Receipt | MailboxFullError]:
        """Disarm a will and accept its drafts, as `publish` does; neither if it was not armed."""
        ...

    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """Append a message to its recipient's mailbox, with an id larger than any before.

        The same `dedupe_key` of the same sender within 10 minutes returns the first receipt
        again, as a duplicate. A reply is one hop further in the thread of what it replies to, and
        the evidence that this was read; it is an answer if it goes to that one's sender. A notice
        about a request that owes none any more is a duplicate, too.

        Raises:
            DedupeConflictError: the key was used for another body.
            HopLimitError: the thread has too many answers to answers.
            MailboxFullError: the recipient has too much unread mail.
        """
        ...

    async def accepted(self, draft: Draft, *, now: float) -> Message | None:
        """Return what was accepted before under the same key of the same sender, if anything was.

        Raises:
            DedupeConflictError: the key was used for another body.
        """
        ...

    async def unread(self, owner: PeerId, *, after: int = 0, limit: int = 0) -> list[Message]:
        """Return queued and pushed messages above `after`, oldest first; limit 0 is all."""
        ...

    async def move(
        self, owner: PeerId, ids: Iterable[int], event: Event, *, now: float, via: str = ""
    ) -> list[int]:
        """Apply `event` to those of `owner`'s messages for which it is legal; return their ids.

        Each gets a step of its story; of what dies, `via` is the reason as well. What would be
        pushed after `deliveries` hand-outs is dead.
        """
        ...

    async def hand_out(self, owner: PeerId, claim: Claim, *, now: float) -> list[Message]:
        """Settle an earlier hand-out, then lease and return what is queued or pushed.

        What was handed out `deliveries` times before is dead instead.
        """
        ...

    async def admit(self, owner: PeerId, sender: str, *, now: float) -> list[Message]:
        """Queue what was held of one sender; return it, oldest first."""
        ...

    async def readdress(self, old: PeerId, new: PeerId, name: str, *, now: float) -> int:
        """Give `new` the unread mail that was sent to `old` by `name`; return how much it was."""
        ...

    async def tidy(self, *, now: float, most: int) -> int:
        """Let messages whose time is over die; forget long finished ones and old dedupe keys.

        At most `most` rows are touched; returns how many were, so that a caller goes on until 0.
        """
        ...

    async def mailbox(self, owner: PeerId) -> Mailbox:
        """Return how much unread mail `owner` has."""
        ...

    async def message(self, message_id: int) -> Message | None:
        """Return one message."""
        ...

    async def stories(self, ids: Iterable[int]) -> list[Story]:
        """Return those of these messages that there are, by id, with what happened to each."""
        ...

    async def dead_letters(self, owner: PeerId | None = None, *, limit: int) -> list[Message]:
        """Return the dead letters of one mailbox, or of all, newest first."""
        ...

    async def owed(
        self, *, now: float | None = None, by: PeerId | None = None, limit: int
    ) -> list[Message]:
        """Return requests whose sender waits for an answer: overdue `now`, or owed `by` a peer."""
        ...

    async def history(
        self, *, after: int = 0, before: int = 0, limit: int, newest: bool = False
    ) -> list[Message]:
        """Return messages between two ids, in whatever state, in the order of acceptance.

        `before` 0 is the end. Of more than `limit` these are the first, or the last if `newest`.
        """
        ...

    async def ledger(self) -> Ledger:
        """Return the count of messages by state, as kept in the transactions themselves."""
        ...


class Clock(Protocol):
    """What time it is."""

    def wall(self) -> float:
        """Return seconds since the epoch; may step."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment; never steps."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What the broker knows about its machine.

    Attributes:
        host: the machine's name.
        boot: its boot id.
        identify: the running process of a pid, or None.
        alive: whether a process still runs; one of another user counts as running.
    """

    host: str
    boot: str
    identify: Callable[[int], Process | None]
    alive: Callable[[Process], bool]


class Transport(Protocol):
    """A way for the broker to reach peers unasked."""

    def reaches(self, peer_id: PeerId) -> bool:
        """Whether `peer_id` has a connection through this transport now."""
        ...

    def deliver(self, message: Message) -> None:
        """Offer a freshly accepted message to its recipient; never blocks, never raises.

        What cannot be written now is offered again, in order, when the recipient reads again
        or reconnects.
        """
        ...

    def settled(self, peer_id: PeerId, ids: list[int]) -> None:
        """Tell the peer's own connection that these have been read; never blocks, never raises."""
        ...

    def look_again(self, peer_id: PeerId) -> None:
        """Tell that a peer may be handed more: mail came back, or was settled; never blocks."""
        ...

    def dismiss(self, peer_id: PeerId) -> None:
        """Hang up on second servers of a peer that is gone: they come back as themselves."""
        ...
