"""What a push tells of a sender on another machine."""

import pytest
from support.brokers import NO_LIMITS, FlakyStore, draft

from claude_peers.core.models import Peer, PeerId
from claude_peers.transports.live import LiveConnections

pytestmark = pytest.mark.anyio


class Sink:
    """Takes down what is written."""

    clogged = False

    def __init__(self):
        self.frames = []

    def write(self, frame):
        self.frames.append(frame.decode())

    def hang_up(self):
        """Never asked to."""


@pytest.mark.parametrize(
    ("machine", "shared", "cwd"),
    [("mac", False, '"p"'), ("mac", True, '"/home/ann/p"'), ("", False, '"/home/ann/p"')],
)
async def test_a_path_crosses_to_another_machine_only_if_it_is_shared(machine, shared, cwd):
    ann = Peer(id=PeerId("ann"), name="ann", cwd="/home/ann/p", machine=machine, shared=shared)
    bob = Peer(id=PeerId("bob"), name="bob")
    store, sink = FlakyStore(), Sink()
    live = LiveConnections(store, {"ann": ann, "bob": bob}.get)
    live.attach(bob.id, sink)
    while not live._streams[bob.id]._caught_up:
        await next(iter(live._tasks))
    live.deliver((await store.accept(draft("hi"), NO_LIMITS, now=0.0)).message)
    (frame,) = sink.frames
    assert f'"cwd":{cwd}' in frame
