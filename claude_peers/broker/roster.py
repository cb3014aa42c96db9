"""The peers as the broker knows them, in memory, written through to the store.

Only the leader writes, so what it has in memory is what is stored; a list of a thousand peers
costs no query. Signs of life stay in memory: they are worth no fsync of their own.
"""

from collections.abc import Iterator
from dataclasses import replace

from claude_peers.broker.ports import Store
from claude_peers.core.discovery import by_id
from claude_peers.core.models import Peer, PeerId, Presence


class Roster:
    """Peers by id, in the order of their first registration."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._peers: dict[PeerId, Peer] = {}
        self._life: dict[PeerId, float] = {}

    def __iter__(self) -> Iterator[Peer]:
        """Yield every known peer, also those away and departed."""
        return iter(self._peers.values())

    async def load(self, *, now: float) -> None:
        """Read all peers; everybody present gets a fresh period of grace."""
        self._peers = {peer.id: peer for peer in await self._store.peers()}
        self._life = dict.fromkeys(self._peers, now)

    def get(self, peer_id: str) -> Peer | None:
        """Return the peer with this id, also one that is away or departed."""
        return self._peers.get(PeerId(peer_id))

    def find(self, peer_id: str) -> Peer | None:
        """Return the addressable peer with this id."""
        return by_id(peer_id, self._peers)

    def by_token(self, token_hash: str | None) -> Peer | None:
        """Return the peer whose token has this hash."""
        if token_hash is None:
            return None
        return next((peer for peer in self if peer.token_hash == token_hash), None)

    def present(self) -> list[Peer]:
        """Return the peers that are there now."""
        return [peer for peer in self if peer.presence is Presence.PRESENT]

    def names(self, *, without: PeerId | None = None) -> set[str]:
        """Return every name and id that is taken, except by `without`."""
        taken = {peer.name for peer in self.present() if peer.id != without}
        return taken | self._peers.keys()

    async def put(self, peer: Peer) -> None:
        """Add or change a peer, durably."""
        self._peers[peer.id] = peer
        await self._store.save_peer(peer)

    async def forget(self, peers: list[Peer]) -> None:
        """Drop peers for good."""
        for peer in peers:
            self._peers.pop(peer.id, None)
            self._life.pop(peer.id, None)
        await self._store.forget_peers([peer.id for peer in peers])

    def alive(self, peer_id: PeerId, *, now: float, at: str) -> None:
        """Take a sign of life: `now` is monotonic seconds, `at` the time to show."""
        peer = self._peers.get(peer_id)
        if peer is not None:
            self._life[peer_id] = now
            self._peers[peer_id] = replace(peer, last_seen=at)

    def silent_for(self, peer_id: PeerId, *, now: float) -> float:
        """Return the seconds since a peer's last sign of life."""
        return now - self._life.get(peer_id, now)
