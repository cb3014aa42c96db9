"""Messages that were handed out and are not settled yet; in memory, as leases end with an epoch.

A legacy poll (claude-peers-mcp consumes on poll) leases without a clock: the next poll of the
same peer settles what was written whole. A poll with `ack_supported` is settled by an
acknowledgement, or given back after a minute or when its connection ends.
"""

from dataclasses import dataclass, field

from claude_peers.core.models import PeerId

ACK_WITHIN = 60.0
"""Seconds to acknowledge a hand-out (claude-peers-mcp PR 60)."""


@dataclass(slots=True, eq=False)
class Handout:
    """One answer's messages; `written` once every byte of the answer was handed over.

    Attributes:
        closed: it is settled or given up as a whole.
        once: those of them that are done once they were written.
        streamed: a stream has it in hand (`broker.streams`), or had until it could not be returned.
    """

    owner: PeerId
    ids: set[int]
    deadline: float | None = None
    written: bool = False
    closed: bool = False
    once: list[int] = field(default_factory=list)
    streamed: bool = False


@dataclass(slots=True)
class Leases:
    """All unsettled hand-outs by owner."""

    _open: dict[PeerId, list[Handout]] = field(default_factory=dict)

    def begin(self, owner: PeerId, ids: list[int], *, deadline: float | None = None) -> Handout:
        """Remember a hand-out; without a deadline it is a legacy one."""
        handout = Handout(owner, set(ids), deadline)
        if ids:
            self._open.setdefault(owner, []).append(handout)
        return handout

    def arrived(self, owner: PeerId) -> tuple[int, ...]:
        """Settle the legacy hand-outs that were written; return their messages."""
        legacy = [h for h in self._open.get(owner, ()) if h.deadline is None and h.written]
        return self._close(legacy)

    def acknowledge(self, owner: PeerId, ids: tuple[int, ...]) -> None:
        """Forget messages that are settled by acknowledgement."""
        for handout in list(self._open.get(owner, ())):
            handout.ids.difference_update(ids)
            if not handout.ids:
                self._close([handout])

    def streamed(self, owner: PeerId) -> set[int]:
        """Return what the streams of a peer have in hand."""
        return set[int]().union(*(each.ids for each in self._open.get(owner, ()) if each.streamed))

    def drop(self, handout: Handout) -> tuple[int, ...]:
        """Give up one hand-out; return its messages."""
        return self._close([handout])

    def drop_all(self, owner: PeerId) -> tuple[int, ...]:
        """Give up everything handed out to a peer that has gone; return the messages."""
        return self._close(list(self._open.get(owner, ())))

    def overdue(self, *, now: float) -> list[Handout]:
        """Return the hand-outs whose deadline is over."""
        return [
            handout
            for handouts in self._open.values()
            for handout in handouts
            if handout.deadline is not None and handout.deadline <= now
        ]

    def _close(self, handouts: list[Handout]) -> tuple[int, ...]:
        ids: set[int] = set()
        for handout in handouts:
            handout.closed = True
            unsettled = self._open.get(handout.owner, [])
            if handout not in unsettled:  # closed before: its messages may be in other hands
                continue
            ids |= handout.ids
            unsettled.remove(handout)
            if not unsettled:
                del self._open[handout.owner]
        return tuple(sorted(ids))
