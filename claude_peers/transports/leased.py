"""Pushes over connections whose clients acknowledge: each message is leased before it is written.

The stream takes a page when there is room for it, and the next one when that was written whole: so
memory is bounded, however much waits and however slowly the peer reads. What was written and not
acknowledged is in hand (`broker.streams`). A message of quality 0 is done once it was written.
"""

from collections import deque
from typing import Protocol

from claude_peers.broker.streams import Hand
from claude_peers.core.limits import PAGE
from claude_peers.core.models import Message, PeerId
from claude_peers.core.profile import AT_MOST_ONCE
from claude_peers.transports.live import LiveConnections


class MessageSink(Protocol):
    """The writing end of such a connection."""

    def write_message(self, message: Message) -> None:
        """Write or buffer a message; on a broken connection it is dropped."""
        ...

    @property
    def clogged(self) -> bool:
        """Whether anything still waits to be handed to the system, or the connection is broken."""
        ...

    def hang_up(self) -> None:
        """End the connection: a newer one takes its place."""
        ...


class LeasedStream:
    """The pushes to one peer over one connection; see `transports.live.PeerStream`.

    Args:
        sink: where it writes.
        hand: what it has in hand.
        live: all connections.
    """

    def __init__(self, sink: MessageSink, hand: Hand, live: LiveConnections) -> None:
        self.peer_id: PeerId = hand.owner
        self.hand = hand
        self._sink = sink
        self._live = live
        self._page: deque[Message] = deque()
        self._more = True
        self._pumping = False
        self._unproved: list[int] = []

    def offer(self, _message: Message) -> None:
        """Take what is there, in its order."""
        self.look_again()

    def settled(self, ids: list[int]) -> None:
        """Nothing: what is not in hand any more is not written."""

    def look_again(self) -> None:
        """Take more if there is room."""
        self._more = True
        self._go_on()

    def drained(self) -> None:
        """Go on after everything was handed to the system."""
        if self._unproved and not self._sink.clogged:
            done, self._unproved = self._unproved, []
            self._live.in_background(self.hand.seen(done))
        self._go_on()

    def hang_up(self) -> None:
        """Give back what is in hand and end the connection."""
        self.end()
        self._sink.hang_up()

    def end(self) -> None:
        """Give back what is in hand: the connection has ended."""
        self._page.clear()
        self.hand.end()

    def _go_on(self) -> None:
        if not self._pumping and self._may_write():
            self._pumping = True
            self._live.in_background(self._pump())

    async def _pump(self) -> None:
        try:
            while self._may_write():
                if self._page:
                    self._write(self._page.popleft())
                elif self._more and self.hand.room:
                    await self._turn_page()
                else:
                    return
        finally:
            self._pumping = False

    async def _turn_page(self) -> None:
        room, self._more = min(PAGE, self.hand.room), False
        try:
            page = await self.hand.take()
        except BaseException:
            self._more = True
            raise
        self._page.extend(page)
        self._more = self._more or len(page) == room

    def _may_write(self) -> bool:
        return self._live.holds(self) and not self._sink.clogged

    def _write(self, message: Message) -> None:
        if not self.hand.holds(message.id):
            return  # acknowledged elsewhere, or overdue while the peer did not read
        self._sink.write_message(message)
        if message.qos == AT_MOST_ONCE:
            self._unproved.append(message.id)
            self.drained()


def attach(live: LiveConnections, sink: MessageSink, hand: Hand) -> LeasedStream:
    """Send a peer's unread mail, and whatever comes, to `sink`; the newest stream wins."""
    stream = LeasedStream(sink, hand, live)
    live.install(stream)
    return stream
