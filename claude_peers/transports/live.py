"""Pushes over live connections: one stream per peer, in order, never faster than it reads.

Each stream keeps a cursor, the id of the last message it wrote. While it is caught up, a freshly
accepted message is written at once, without a query. Once its peer reads too slowly it falls
behind, writes nothing more, and is read up from the store, page by page, when it drains. So
order is the store's, memory is bounded, and a message is written once per connection.

A message that is older than the cursor and was not written comes from a sender that was muted,
or was meant for an earlier holder of the peer's name. It is written when it is offered, too.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from claude_peers.broker.ports import Store
from claude_peers.core.limits import PAGE
from claude_peers.core.models import Message, Peer, PeerId, State
from claude_peers.core.sharing import as_seen_from
from claude_peers.wire import frames
from claude_peers.wire.records import kept_view

log = logging.getLogger(__name__)

AGAIN = 5.0
"""Seconds until streams that a failing store has stopped go on, if nothing comes before."""
RECENT = 4 * PAGE
"""Messages a stream knows to have written: the pump is never a page ahead of what is offered."""


class Sink(Protocol):
    """The writing end of a live connection."""

    def write(self, frame: bytes) -> None:
        """Write or buffer a whole frame; on a broken connection it is dropped."""
        ...

    @property
    def clogged(self) -> bool:
        """Whether earlier frames still wait to be read."""
        ...

    def hang_up(self) -> None:
        """End the connection."""
        ...


class Companion(Protocol):
    """The connection of a second server of an agent; it is not pushed to."""

    def hang_up(self) -> None:
        """End the connection."""
        ...


class PeerStream(Protocol):
    """The pushes to one peer over one connection."""

    peer_id: PeerId

    def offer(self, message: Message) -> None:
        """Write a message that may be read from now on, or leave it for later."""
        ...

    def settled(self, ids: list[int]) -> None:
        """Tell that messages have been read."""
        ...

    def look_again(self) -> None:
        """Tell that messages came back which the peer was handed, or that it has settled some."""
        ...

    def drained(self) -> None:
        """Go on after the peer has read what was written."""
        ...

    def hang_up(self) -> None:
        """End the connection: a newer one takes its place."""
        ...


class Stream:
    """The pushes over a live connection, whose client keeps them; see `PeerStream`."""

    def __init__(self, peer_id: PeerId, sink: Sink, live: "LiveConnections", *, after: int) -> None:
        self.peer_id = peer_id
        self.sink = sink
        self._live = live
        self._cursor = after
        self._caught_up = False
        self._pumping = False
        self._offered: list[int] = []  # while the pump was reading
        self._late: list[int] = []  # behind the cursor, and not written
        self._written: deque[int] = deque(maxlen=RECENT)
        self._settled: set[int] = set()  # while the pump was reading

    def offer(self, message: Message) -> None:
        """Write a message that may be read from now on, or leave it to the pump."""
        late = message.id <= self._cursor
        if late and message.id in self._written:
            return
        if self._caught_up and not self.sink.clogged:
            self._write(message)
            return
        self._caught_up = False
        if late:
            self._late.append(message.id)
        elif self._pumping:
            self._offered.append(message.id)
        if not self.sink.clogged:
            self.drained()  # a pump that failed is not running any more

    def settled(self, ids: list[int]) -> None:
        """Tell that messages have been read; what the pump has in hand of them is not written."""
        if self._pumping:
            self._settled.update(ids)
        self.sink.write(frames.settled(ids))

    def look_again(self) -> None:
        """Nothing: what was taken otherwise and came back was written before."""

    def hang_up(self) -> None:
        """End the connection."""
        self.sink.hang_up()

    def drained(self) -> None:
        """Go on after the peer has read what was written."""
        if not self._caught_up and not self._pumping:
            self._pumping = True
            self._live.in_background(self._pump())

    async def _pump(self) -> None:
        try:
            while self._may_write():
                self._settled.clear()
                if self._late:
                    await self._write_late()
                    continue
                self._offered.clear()
                page = await self._live.store.unread(self.peer_id, after=self._cursor, limit=PAGE)
                for message in page:
                    if not self._may_write():
                        break
                    self._write(message)
                # What was offered while the page was read may have been passed over.
                passed = [number for number in self._offered if number <= self._cursor]
                self._late += [number for number in passed if number not in self._written]
                if len(page) < PAGE and not self._offered and self._may_write():
                    self._caught_up = True
                    return
        finally:
            self._pumping = False
            self._settled.clear()

    async def _write_late(self) -> None:
        message = await self._live.store.message(self._late[0])
        if not self._may_write():
            return
        del self._late[0]
        if message is None or message.to_id != self.peer_id:
            return
        if message.state in (State.QUEUED, State.PUSHED):
            self._write(message)

    def _may_write(self) -> bool:
        return self._live.holds(self) and not self.sink.clogged

    def _write(self, message: Message) -> None:
        self._cursor = max(self._cursor, message.id)
        self._written.append(message.id)
        if message.id in self._settled:
            return
        self.sink.write(frames.push(kept_view(message), self._shown(message.from_id)))

    def _shown(self, sender_id: str) -> dict[str, Any] | None:
        """Return what the stream's peer may see of a sender."""
        sender, me = self._live.find(sender_id), self._live.find(self.peer_id)
        return _sender_view(as_seen_from(sender, me.machine if me else "")) if sender else None


class LiveConnections:
    """The Transport port over live connections.

    Args:
        store: where a stream reads up from.
        find: the peer of an id, for the sender's name and the like.
    """

    name = "live"

    def __init__(self, store: Store, find: Callable[[str], Peer | None]) -> None:
        self.store = store
        self.find = find
        self._streams: dict[PeerId, PeerStream] = {}
        self._companions: dict[PeerId, set[Companion]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many peers are connected."""
        return len(self._streams)

    def attach(self, peer_id: PeerId, sink: Sink, *, after: int = 0) -> Stream:
        """Send a peer's unread mail, and whatever comes, to `sink`; the newest sink wins.

        Messages up to the id `after` came over an earlier connection of the same process.
        """
        stream = Stream(peer_id, sink, self, after=after)
        self.install(stream)
        return stream

    def install(self, stream: PeerStream) -> None:
        """Let a stream be its peer's from now on, and end the one that was."""
        earlier = self._streams.get(stream.peer_id)
        self._streams[stream.peer_id] = stream
        if earlier is not None:
            # Half open: its peer has given it up, and it would stay for ever, as the standby even.
            earlier.hang_up()
        stream.drained()

    def detach(self, stream: PeerStream) -> bool:
        """Forget a stream whose connection has ended; False if a newer one took its place."""
        if self._streams.get(stream.peer_id) is not stream:
            return False
        del self._streams[stream.peer_id]
        return True

    def holds(self, stream: PeerStream) -> bool:
        """Whether `stream` is still its peer's."""
        return self._streams.get(stream.peer_id) is stream

    def reaches(self, peer_id: PeerId) -> bool:
        """See `broker.ports.Transport`."""
        return peer_id in self._streams

    def deliver(self, message: Message) -> None:
        """See `broker.ports.Transport`."""
        if stream := self._streams.get(message.to_id):
            stream.offer(message)

    def settled(self, peer_id: PeerId, ids: list[int]) -> None:
        """See `broker.ports.Transport`."""
        if stream := self._streams.get(peer_id):
            stream.settled(ids)

    def look_again(self, peer_id: PeerId) -> None:
        """See `broker.ports.Transport`."""
        if stream := self._streams.get(peer_id):
            stream.look_again()

    def dismiss(self, peer_id: PeerId) -> None:
        """See `broker.ports.Transport`."""
        for companion in list(self._companions.pop(peer_id, ())):
            companion.hang_up()

    def accompany(self, peer_id: PeerId, companion: Companion) -> None:
        """Remember the connection of a second server of a peer's agent."""
        self._companions.setdefault(peer_id, set()).add(companion)

    def part(self, peer_id: PeerId, companion: Companion) -> None:
        """Forget the connection of a second server."""
        beside = self._companions.get(peer_id, set())
        beside.discard(companion)
        if not beside:
            self._companions.pop(peer_id, None)

    def in_background(self, work: Any) -> None:
        """Run a stream's pump; where the store fails, that is logged and tried again."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a push stream stopped: %s", error)
            if self._retry is None:
                self._retry = task.get_loop().call_later(AGAIN, self._go_on)

    def _go_on(self) -> None:
        self._retry = None
        for stream in list(self._streams.values()):
            stream.drained()


def _sender_view(peer: Peer) -> dict[str, Any]:
    return {"name": peer.name, "summary": peer.summary, "cwd": peer.cwd, "host": peer.host}
