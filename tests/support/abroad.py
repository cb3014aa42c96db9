"""A broker in this process that another machine has joined, over TLS."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import h11

from claude_peers.broker.machines import Doors, hash_of
from claude_peers.client.exchange import Answer
from claude_peers.client.joined import Joined
from claude_peers.client.remote import RemoteLink
from claude_peers.wire.invitation import Address, Invitation
from claude_peers.wire.tls import server_context
from support.inproc import Running, running
from support.tls import shown

TOKEN = "t" * 43
BOUND = 10.0


@dataclass
class Abroad:
    """The broker, and how the machine `mac` reaches it."""

    broker: Running
    joined: Joined

    def invite(self, name: str = "vm") -> Invitation:
        return self.broker.run(self.broker.broker.machines.invite(name, ttl=None))[1]

    def revoke(self, name: str = "mac") -> None:
        self.broker.run(self.broker.broker.machines.revoke(name))

    def link(self, *, clock: Callable[[], float] = time.time) -> RemoteLink:
        """Return a connection of that machine."""
        known = replace(self.joined, clock=clock)
        return RemoteLink(known, deadline=time.monotonic() + BOUND)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> h11.Request:
    """Return a request without a signature, unless the headers hold one."""
    lines = {"host": "h", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if method == "POST":
        lines |= {"content-type": "application/json", "content-length": str(len(body))}
    return h11.Request(method=method, target=path, headers=list(lines.items()))


def ask(
    link: RemoteLink, method: str, path: str, body: bytes = b"", *, signed: Any = None, **more: str
) -> Answer:
    """Return the answer to a request, signed anew unless a signature is given."""
    headers = link.signed(method, path, body) if signed is None else signed
    asked = request(method, path, body, **headers, **more)
    return link.exchange(asked, body, deadline=time.monotonic() + BOUND, most=1 << 20)


@contextlib.contextmanager
def abroad(**options: Any) -> Iterator[Abroad]:
    """Serve a broker that one machine has joined."""
    with running(**options) as broker:
        listener = socket.create_server(("127.0.0.1", 0))
        address = Address(*listener.getsockname())
        machines, theirs = broker.broker.machines, shown()
        broker.run(broker.server.start_tls(listener, server_context(theirs.path)))
        machines.doors = lambda: Doors(addresses=(str(address),), pin=theirs.pin)
        machines.left = broker.server.expel
        code = broker.run(machines.invite("mac", ttl=None))[1].code
        broker.run(machines.join(code, hash_of(TOKEN)))
        known = Joined(address=address, pin=theirs.pin, token=TOKEN, name="mac", clock=time.time)
        yield Abroad(broker, known)
