"""The peers as the broker knows them, in memory, written through to the store.

Only the leader writes, so what it has in memory is what is stored; a list of a thousand peers
costs no query. Signs of life stay in memory: they are worth no fsync of their own.
"""

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import replace

from claude_peers.broker.ports import Store
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.models import Peer, PeerId, Presence, Trust

BESIDE = 64
"""Second servers that may act for one peer at a time, the newest."""


class Roster:
    """Peers by id, in the order of their first registration."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._peers: dict[PeerId, Peer] = {}
        self._life: dict[PeerId, float] = {}
        self._inherited: frozenset[PeerId] = frozenset()
        self._attached: dict[str, PeerId] = {}
        self._coming: set[PeerId] = set()

    def __iter__(self) -> Iterator[Peer]:
        """Yield every known peer, also those away and departed."""
        return iter(self._peers.values())

    async def load(self, *, now: float) -> None:
        """Read all peers; everybody present gets a fresh period of grace."""
        self._peers = {peer.id: peer for peer in await self._store.peers()}
        self._life = dict.fromkeys(self._peers, now)
        self._inherited = frozenset(self._peers)

    def get(self, peer_id: str) -> Peer | None:
        """Return the peer with this id, also one that is away or departed."""
        return self._peers.get(PeerId(peer_id))

    def inherited(self, peer_id: PeerId) -> bool:
        """Whether a peer was registered with an earlier broker."""
        return peer_id in self._inherited

    def by_token(self, token_hash: str | None) -> Peer | None:
        """Return the peer whose token has this hash."""
        if token_hash is None:
            return None
        return next((peer for peer in self if peer.token_hash == token_hash), None)

    def stored(self) -> list[Peer]:
        """Return the peers that are durable: nobody can have been told of another."""
        return [peer for peer in self if peer.id not in self._coming]

    def present(self) -> list[Peer]:
        """Return the peers that are there now."""
        return [peer for peer in self if peer.presence is Presence.PRESENT]

    def names(self, *, without: Collection[str] = ()) -> set[str]:
        """Return every id, and the names of the present peers but those in `without`."""
        taken = {peer.name for peer in self.present() if peer.id not in without}
        return taken | self._peers.keys()

    async def put(self, *peers: Peer) -> None:
        """Add or change peers, durably; they are in the roster at once, and share a commit.

        Raises:
            StoreError: they were not stored, and the roster is as it was.
        """
        before = {peer.id: self._peers.get(peer.id) for peer in peers}
        coming = {peer_id for peer_id, earlier in before.items() if earlier is None}
        self._coming |= coming
        self._peers |= {peer.id: peer for peer in peers}
        try:
            await asyncio.gather(*(self._store.save_peer(peer) for peer in peers))
        except ClaudePeersError:
            for peer in peers:
                if self._peers.get(peer.id) is peer:
                    self._restore(peer.id, before[peer.id])
            raise
        finally:
            self._coming -= coming

    def note(self, peer: Peer) -> None:
        """Change what is worth no fsync: route and activity, which each connection tells anew."""
        self._peers[peer.id] = peer

    def attach(self, token_hash: str, peer_id: PeerId) -> None:
        """Let a further token speak for a peer, for as long as this broker leads."""
        self._attached[token_hash] = peer_id
        beside = [token for token, of in self._attached.items() if of == peer_id]
        for token in beside[:-BESIDE]:  # those that were killed and had no connection to end
            del self._attached[token]

    def attached(self, token_hash: str | None, peer_id: str) -> bool:
        """Whether a token is a second server's of this peer."""
        return token_hash is not None and self._attached.get(token_hash) == peer_id

    def release(self, token_hash: str | None) -> bool:
        """Forget a second server's token; False if it is none."""
        return token_hash is not None and self._attached.pop(token_hash, None) is not None

    async def bind(self, peer_id: PeerId) -> None:
        """Let nothing but its token speak for a peer from now on."""
        peer = self._peers[peer_id]
        if peer.trust in (Trust.OPEN, Trust.PROCESS):
            await self.put(replace(peer, trust=Trust.TOKEN))

    async def forget(self, *, gone_since: str) -> None:
        """Drop for good who went before that time and has not come back."""
        ids = [
            peer.id
            for peer in self
            if peer.presence is not Presence.PRESENT and peer.last_seen < gone_since
        ]
        for peer_id in ids:
            del self._peers[peer_id]
            self._life.pop(peer_id, None)
        self._attached = {key: of for key, of in self._attached.items() if of in self._peers}
        if ids:
            await self._store.forget_peers(ids)

    def alive(self, peer_id: PeerId, *, now: float, at: str) -> None:
        """Take a sign of life: `now` is monotonic seconds, `at` the time to show."""
        peer = self._peers.get(peer_id)
        if peer is not None:
            self._life[peer_id] = now
            self._peers[peer_id] = replace(peer, last_seen=at)

    def give_time(self, *, now: float) -> None:
        """Count everybody's silence from now on."""
        self._life = dict.fromkeys(self._life, now)

    def silent_for(self, peer_id: PeerId, *, now: float) -> float:
        """Return the seconds since a peer's last sign of life."""
        return now - self._life.get(peer_id, now)

    def _restore(self, peer_id: PeerId, peer: Peer | None) -> None:
        if peer is None:
            del self._peers[peer_id]
        else:
            self._peers[peer_id] = peer
