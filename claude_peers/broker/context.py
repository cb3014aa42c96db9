"""What every part of the broker works with: its ports, the roster, and who may act for whom."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from claude_peers.broker.lapses import Lapses
from claude_peers.broker.leases import ACK_WITHIN, Leases
from claude_peers.broker.ports import Clock, Here, Store, Transport
from claude_peers.broker.roster import Roster
from claude_peers.core import access, discovery, identity, liveness
from claude_peers.core.delivery import Event
from claude_peers.core.errors import ClaudePeersError, NotYourPeerError, PeerNotFoundError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Caller, Peer, PeerId, Trust

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user decided about this broker."""

    limits: Limits = field(default_factory=Limits)
    require_token: bool = False
    share: bool = False
    """Whether other machines see all of this one's peers."""
    fleet_secret: bytes = field(default=b"", repr=False)
    """What messages are signed with for agentmesh's clients, if there is one."""
    fleet_id: str | None = None
    """The fleet of peers that name none."""
    broker_id: str = ""
    ack_within: float = ACK_WITHIN
    """Seconds to acknowledge a hand-out."""
    silence: float = liveness.SILENCE
    """Seconds without a sign of life after which a peer without a known process is gone."""


class Context:
    """The broker's ports and what its parts share.

    Args:
        store: where peers and mail are kept.
        transport: how peers are reached unasked.
        clock: what time it is.
        here: facts about this machine.
        options: limits and the like.
    """

    def __init__(
        self, store: Store, transport: Transport, *, clock: Clock, here: Here, options: Options
    ) -> None:
        self.store = store
        self.transport = transport
        self.clock = clock
        self.here = here
        self.options = options
        self.roster = Roster(store)
        self.leases = Leases()
        self.lapses = Lapses(clock)
        self._background: set[asyncio.Task[Any]] = set()

    def mine(self, caller: Caller, peer_id: str) -> Peer | None:
        """Return the peer if it is known, after seeing that the caller may act for it.

        Raises:
            NotYourPeerError: it may not.
        """
        peer, required = self.roster.get(peer_id), self.options.require_token
        if peer is None:
            access.check_unknown(caller, peer_id, required=required)
        elif not (self.roster.attached(caller.token_hash, peer.id) or _is_user_of(caller, peer)):
            access.check(caller, peer, required=required)
            if caller.token_hash is not None and peer.trust in (Trust.OPEN, Trust.PROCESS):
                self.in_background(self.roster.bind(peer.id))
        return peer

    def resolve(self, target: str, caller: Caller) -> Peer:
        """Return the one peer that a caller means; see `core.discovery.resolve`."""
        return discovery.resolve(
            target,
            self.roster.stored(),
            host=self.here.host,
            now=self.clock.wall(),
            machine=caller.machine,
        )

    def managed(self, caller: Caller, peer_id: str) -> Peer:
        """Return a peer that the caller may manage: its own, or any of the user that it is.

        Users know names: theirs may be anything that `resolve` understands.

        Raises:
            AmbiguousPeerError: several could be meant.
            NotYourPeerError: it is neither.
            PeerNotFoundError: there is no such peer.
        """
        peer = self.roster.get(peer_id)
        if peer is None and caller.is_user_of(caller.machine):
            peer = self.resolve(peer_id, caller)
        if peer is None:
            raise PeerNotFoundError(peer_id)
        # The broker's user manages all that it serves.
        if not (caller.knows_secret or self.concerns(caller, peer.id)):
            raise NotYourPeerError(peer_id)
        return peer

    def concerns(self, caller: Caller, peer_id: str) -> bool:
        """Whether it is known that the caller is this peer, or its user."""
        peer = self.roster.get(peer_id)
        if peer is None:  # a command that has not registered, as `core.access` signs it
            mine = caller.machine and peer_id.endswith(f"@{caller.machine}")
            return bool(mine) and caller.is_user_of(caller.machine)
        return caller.is_user_of(peer.machine) or self.speaks_for(caller, peer)

    def speaks_for(self, caller: Caller, peer: Peer) -> bool:
        """Whether it is known that the caller is this peer.

        A second server of its agent is, and so is the user where the peer is a shell.
        """
        if self.roster.attached(caller.token_hash, peer.id) or _is_user_of(caller, peer):
            return True
        return access.speaks_for(caller, peer)

    def heard_of(self, peer_id: str) -> None:
        """Take a sign of life."""
        self.roster.alive(PeerId(peer_id), now=self.clock.monotonic(), at=self.at())

    def at(self) -> str:
        """Return the time to show: ISO 8601, UTC, milliseconds."""
        return iso(self.clock.wall())

    def give_back(self, owner: PeerId, ids: tuple[int, ...], why: str) -> None:
        """Return messages that were handed out and did not arrive; nobody waits for it."""
        if ids:
            self.in_background(self._return(owner, ids, why))

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something nobody waits for; a failure is logged."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("background work failed: %s", error)

    async def _return(self, owner: PeerId, ids: tuple[int, ...], why: str) -> None:
        now = self.clock.monotonic()
        try:
            await self.store.move(owner, ids, Event.RETURN, now=self.clock.wall(), via=why)
            self.transport.look_again(owner)
        except ClaudePeersError:
            # The next round tries again; until then a look shows them, as nobody else can.
            self.leases.begin(owner, list(ids), deadline=now).streamed = True
            raise


def _is_user_of(caller: Caller, peer: Peer) -> bool:
    return caller.is_user_of(peer.machine) and identity.is_shell(peer)


def iso(seconds: float) -> str:
    """Return a time (seconds since the epoch) as upstream writes it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
