"""The Store port in memory: the reference that tests measure other stores against."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import DELIVERIES, EXPIRED, TRANSITIONS, Event, given_up, proved_by
from claude_peers.core.errors import DedupeConflictError
from claude_peers.core.limits import Limits, check_mailbox, next_hop
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
    Step,
    Story,
)
from claude_peers.stores.memory_beside import Beside
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ

_OFFERED = (State.QUEUED, State.PUSHED)


@dataclass(slots=True)
class _Entry:
    message: Message
    owed_at: float | None = None
    steps: tuple[Step, ...] = ()

    def change(self, step: Step, **changes: Any) -> None:
        """Change the message, and note why."""
        self.message = replace(self.message, **changes)
        self.steps = (*self.steps, step)
        if self.message.state in (State.ANSWERED, State.DEAD):
            self.owed_at = None


class MemoryStore(Beside):
    """Durable for as long as the object lives."""

    name = "memory"

    def __init__(self, deliveries: int = DELIVERIES) -> None:
        super().__init__()
        self.deliveries = deliveries
        self._epoch = 0
        self._last = 0
        self._purged = 0
        self._peers: dict[PeerId, Peer] = {}
        self._mail: dict[int, _Entry] = {}
        self._keys: dict[tuple[str, str], tuple[Draft, int, float]] = {}

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def take_office(self, leader: Process, *, now: float) -> int:  # noqa: ARG002 - the port's
        """See `broker.ports.Store`."""
        self._epoch += 1
        for entry in self._mail.values():
            if entry.message.state is State.LEASED:
                step = Step(now, Event.RETURN, "another broker leads")
                entry.change(step, state=State.QUEUED)
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
            self._patterns.pop(peer_id, None)
            self._wills.pop(peer_id, None)
            self._webhooks.pop(peer_id, None)

    async def accept(self, draft: Draft, limits: Limits, *, now: float) -> Receipt:
        """See `broker.ports.Store`."""
        if first := self._earlier(draft, now):
            box = await self.mailbox(draft.to_id)
            return Receipt(message=first, duplicate=True, unread=box.unread, size=box.size)
        request = self._mail.get(draft.notice_of) if draft.notice_of is not None else None
        if request is not None and request.owed_at is None:
            return Receipt(message=request.message, duplicate=True)
        answered = await self.message(draft.reply_to) if draft.reply_to is not None else None
        hops = next_hop(answered.hops) if answered else 0
        box = await self.mailbox(draft.to_id)
        adding = len(draft.text.encode("utf-8", "replace"))
        check_mailbox(draft.to_id, limits, unread=box.unread, size=box.size, adding=adding)
        if request is not None:
            request.owed_at = None
        self._last += 1
        message = Message(
            id=self._last,
            uid=f"memory-{self._last}",
            from_id=draft.from_id,
            to_id=draft.to_id,
            text=draft.text,
            sent_at=draft.sent_at,
            state=State.HELD if draft.held else State.QUEUED,
            verified=draft.verified,
            reply_to=draft.reply_to,
            intent=draft.intent,
            thread=(answered.thread or answered.id) if answered else None,
            hops=hops,
            to_name=draft.to_name,
            expires_at=draft.expires_at,
            topic=draft.topic,
            retained=draft.retained,
            qos=draft.qos,
        )
        self._mail[message.id] = _Entry(message, draft.owed_at)
        if draft.dedupe_key:
            self._keys[draft.from_id, draft.dedupe_key] = (draft, message.id, now)
        if answered is not None:
            owner, via = PeerId(draft.from_id), f"message {message.id}"
            proved = proved_by(answered.from_id, draft.to_id)
            await self.move(owner, [answered.id], proved, now=now, via=via)
        size = box.size + adding
        return Receipt(message=message, unread=box.unread + 1, size=size, replied_to=answered)

    async def accepted(self, draft: Draft, *, now: float) -> Message | None:
        """See `broker.ports.Store`."""
        return self._earlier(draft, now)

    async def unread(self, owner: PeerId, *, after: int = 0, limit: int = 0) -> list[Message]:
        """See `broker.ports.Store`."""
        return [each for each in self._offered(owner) if each.id > after][: limit or None]

    async def move(
        self, owner: PeerId, ids: Iterable[int], event: Event, *, now: float, via: str = ""
    ) -> list[int]:
        """See `broker.ports.Store`."""
        listed = sorted(set(ids))
        if event is Event.PUSH:
            self._give_up(owner, listed, now)
        moved = []
        for number in listed:
            entry = self._mail.get(number)
            if entry is None or entry.message.to_id != owner:
                continue
            if (state := TRANSITIONS.get((entry.message.state, event))) is None:
                continue
            moved.append(number)
            if state is State.DEAD:
                self._kill(number, event, via, now)
                continue
            entry.change(
                Step(now, event, via),
                state=state,
                deliveries=entry.message.deliveries + (event in (Event.LEASE, Event.PUSH)),
                ended_at=entry.message.ended_at if state in UNREAD else now,
            )
        return moved

    async def hand_out(self, owner: PeerId, claim: Claim, *, now: float) -> list[Message]:
        """See `broker.ports.Store`."""
        await self.move(owner, claim.seen, Event.SEE, now=now, via=claim.via)
        await self.move(owner, claim.returned, Event.RETURN, now=now, via=claim.via)
        self._give_up(owner, [message.id for message in self._offered(owner)], now)
        live = [m for m in self._offered(owner) if m.expires_at > now]
        taken = [m for m in live if m.id not in claim.exclude][: claim.limit or None]
        await self.move(owner, [m.id for m in taken], Event.LEASE, now=now, via=claim.via)
        return [replace(m, state=State.LEASED) for m in taken]

    async def admit(self, owner: PeerId, sender: str, *, now: float) -> list[Message]:
        """See `broker.ports.Store`."""
        held = [
            message.id
            for message in self._of(owner)
            if message.from_id == sender and message.state is State.HELD
        ]
        moved = await self.move(owner, held, Event.ADMIT, now=now, via="unmute")
        return [self._mail[number].message for number in moved]

    async def readdress(self, old: PeerId, new: PeerId, name: str, *, now: float) -> int:
        """See `broker.ports.Store`."""
        waiting = [m for m in self._of(old) if m.to_name == name and m.state in UNREAD]
        for message in waiting:
            self._mail[message.id].change(
                Step(now, "readdress", new), to_id=new, inherited=True, state=State.QUEUED
            )
        return len(waiting)

    async def tidy(self, *, now: float, most: int) -> int:
        """See `broker.ports.Store`."""
        touched = 0
        for number, entry in list(self._mail.items()):
            if touched == most:
                break
            message = entry.message
            if message.state in UNREAD:
                if message.expires_at <= now:
                    self._kill(number, Event.EXPIRE, EXPIRED, now)
                    touched += 1
                continue
            keep = KEEP_DEAD if message.state is State.DEAD else KEEP_READ
            if entry.owed_at is None and (message.ended_at or 0.0) <= now - keep:
                del self._mail[number]
                self._purged += 1
                touched += 1
        old = [key for key, (_, _, at) in self._keys.items() if at <= now - DEDUPE_WINDOW]
        for key in old[: most - touched]:
            del self._keys[key]
        return touched + len(old[: most - touched])

    async def mailbox(self, owner: PeerId) -> Mailbox:
        """See `broker.ports.Store`."""
        texts = [message.text for message in self._of(owner) if message.state in UNREAD]
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return Mailbox(unread=len(texts), size=size)

    async def message(self, message_id: int) -> Message | None:
        """See `broker.ports.Store`."""
        entry = self._mail.get(message_id)
        return entry.message if entry else None

    async def stories(self, ids: Iterable[int]) -> list[Story]:
        """See `broker.ports.Store`."""
        found = [self._mail[number] for number in sorted(set(ids)) if number in self._mail]
        return [Story(entry.message, entry.steps) for entry in found]

    async def dead_letters(self, owner: PeerId | None = None, *, limit: int) -> list[Message]:
        """See `broker.ports.Store`."""
        dead = [
            entry.message
            for entry in reversed(self._mail.values())
            if entry.message.state is State.DEAD and owner in (None, entry.message.to_id)
        ]
        return dead[:limit]

    async def owed(
        self, *, now: float | None = None, by: PeerId | None = None, limit: int
    ) -> list[Message]:
        """See `broker.ports.Store`."""
        waiting = [each for each in self._mail.values() if each.owed_at is not None]
        if by is not None:
            found = [each.message for each in waiting if each.message.to_id == by]
        else:
            found = [each.message for each in waiting if (each.owed_at or 0.0) <= (now or 0.0)]
        return found[:limit]

    async def history(
        self, *, after: int = 0, before: int = 0, limit: int, newest: bool = False
    ) -> list[Message]:
        """See `broker.ports.Store`."""
        end = before or self._last + 1
        found = [each.message for number, each in self._mail.items() if after < number < end]
        return found[-limit:] if newest else found[:limit]

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

    def _of(self, owner: PeerId) -> list[Message]:
        return [each.message for each in self._mail.values() if each.message.to_id == owner]

    def _offered(self, owner: PeerId) -> list[Message]:
        return [message for message in self._of(owner) if message.state in _OFFERED]

    def _give_up(self, owner: PeerId, ids: Iterable[int], now: float) -> None:
        for message in self._offered(owner):
            if message.id in ids and message.deliveries >= self.deliveries:
                self._kill(message.id, Event.GIVE_UP, given_up(message.deliveries), now)

    def _kill(self, number: int, event: Event, reason: str, now: float) -> None:
        entry = self._mail[number]
        entry.change(Step(now, event, reason), state=State.DEAD, ended_at=now, reason=reason)
        if entry.message.retained:
            del self._mail[number]
            self._purged += 1
