"""The Store port in memory: the reference that tests measure other stores against."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import TRANSITIONS, Event
from claude_peers.core.errors import DedupeConflictError
from claude_peers.core.limits import Limits, check_mailbox
from claude_peers.core.models import (
    UNREAD,
    Draft,
    Ledger,
    Message,
    Peer,
    PeerId,
    Process,
    Receipt,
    State,
)
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ

_OFFERED = (State.QUEUED, State.PUSHED)


@dataclass(slots=True)
class _Entry:
    message: Message
    expires_at: float
    ended_at: float | None = None


class MemoryStore:
    """Durable for as long as the object lives."""

    name = "memory"

    def __init__(self) -> None:
        self._epoch = 0
        self._last = 0
        self._purged = 0
        self._peers: dict[PeerId, Peer] = {}
        self._mail: dict[int, _Entry] = {}
        self._keys: dict[tuple[str, str], tuple[Draft, int, float]] = {}

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    async def take_office(self, leader: Process) -> int:  # noqa: ARG002 - the port's
        """See `broker.ports.Store`."""
        self._epoch += 1
        for entry in self._mail.values():
            if entry.message.state is State.LEASED:
                entry.message = replace(entry.message, state=State.QUEUED)
        return self._epoch

    async def peers(self) -> list[Peer]:
        """See `broker.ports.Store`."""
        return list(self._peers.values())

    async def save_peer(self, peer: Peer) -> None:
        """See `broker.ports.Store`."""
        self._peers[peer.id] = peer

    async def forget_peers(self, ids: Iterable[PeerId]) -> None:
        """See `broker.ports.Store`."""
        for peer_id in ids:
            self._peers.pop(peer_id, None)

    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """See `broker.ports.Store`."""
        if first := self._earlier(draft, now):
            return Receipt(message=first, duplicate=True)
        box = await self.mailbox(draft.to_id)
        adding = len(draft.text.encode("utf-8", "replace"))
        check_mailbox(draft.to_id, limits, unread=box.unread, size=box.size, adding=adding)
        self._last += 1
        message = Message(
            id=self._last,
            uid=f"memory-{self._last}",
            from_id=draft.from_id,
            to_id=draft.to_id,
            text=draft.text,
            sent_at=draft.sent_at,
            verified=draft.verified,
            reply_to=draft.reply_to,
        )
        self._mail[message.id] = _Entry(message, draft.expires_at)
        if draft.dedupe_key:
            self._keys[draft.from_id, draft.dedupe_key] = (draft, message.id, now)
        if draft.reply_to is not None:
            await self.move(PeerId(draft.from_id), [draft.reply_to], Event.ANSWER, now=now)
        return Receipt(message=message)

    async def unread(self, owner: PeerId, *, after: int = 0, limit: int = 0) -> list[Message]:
        """See `broker.ports.Store`."""
        found = [
            entry.message
            for number, entry in self._mail.items()
            if number > after and entry.message.to_id == owner and entry.message.state in _OFFERED
        ]
        return found[: limit or None]

    async def move(
        self, owner: PeerId, ids: Iterable[int], event: Event, *, now: float
    ) -> list[int]:
        """See `broker.ports.Store`."""
        moved = []
        for number in sorted(set(ids)):
            entry = self._mail.get(number)
            if entry is None or entry.message.to_id != owner:
                continue
            state = TRANSITIONS.get((entry.message.state, event))
            if state is None:
                continue
            handed = event in (Event.LEASE, Event.PUSH)
            entry.message = replace(
                entry.message, state=state, deliveries=entry.message.deliveries + handed
            )
            if state not in UNREAD:
                entry.ended_at = now
            moved.append(number)
        return moved

    async def hand_out(self, owner: PeerId, claim: Claim, *, now: float) -> list[Message]:
        """See `broker.ports.Store`."""
        await self.move(owner, claim.seen, Event.SEE, now=now)
        await self.move(owner, claim.returned, Event.RETURN, now=now)
        free = [m for m in await self.unread(owner) if m.id not in claim.exclude]
        taken = free[: claim.limit or None]
        await self.move(owner, [m.id for m in taken], Event.LEASE, now=now)
        return [replace(m, state=State.LEASED) for m in taken]

    async def tidy(self, *, now: float, most: int) -> int:
        """See `broker.ports.Store`."""
        touched = 0
        for number, entry in list(self._mail.items()):
            if touched == most:
                break
            if entry.message.state in UNREAD:
                if entry.expires_at <= now:
                    entry.message = replace(entry.message, state=State.DEAD)
                    entry.ended_at = now
                    touched += 1
                continue
            keep = KEEP_DEAD if entry.message.state is State.DEAD else KEEP_READ
            if (entry.ended_at or 0.0) <= now - keep:
                del self._mail[number]
                self._purged += 1
                touched += 1
        return touched

    async def mailbox(self, owner: PeerId) -> Mailbox:
        """See `broker.ports.Store`."""
        texts = [
            entry.message.text
            for entry in self._mail.values()
            if entry.message.to_id == owner and entry.message.state in UNREAD
        ]
        return Mailbox(
            unread=len(texts), size=sum(len(t.encode("utf-8", "replace")) for t in texts)
        )

    async def message(self, message_id: int) -> Message | None:
        """See `broker.ports.Store`."""
        entry = self._mail.get(message_id)
        return entry.message if entry else None

    async def ledger(self) -> Ledger:
        """See `broker.ports.Store`."""
        states: dict[State, int] = {}
        for entry in self._mail.values():
            states[entry.message.state] = states.get(entry.message.state, 0) + 1
        return Ledger(accepted=self._last, purged=self._purged, states=states)

    def _earlier(self, draft: Draft, now: float) -> Message | None:
        if not draft.dedupe_key:
            return None
        known = self._keys.get((draft.from_id, draft.dedupe_key))
        if known is None or known[2] <= now - DEDUPE_WINDOW:
            return None
        first, number, _ = known
        if (first.to_id, first.text, first.reply_to) != (draft.to_id, draft.text, draft.reply_to):
            raise DedupeConflictError(draft.dedupe_key)
        entry = self._mail.get(number)
        return entry.message if entry else None
