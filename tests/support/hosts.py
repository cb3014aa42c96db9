"""Two hosts on one wire: network namespaces of a test's own, with a veth pair between them."""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.machine import Machine
from support.waiting import eventually

_CLONE_NEWNET = 0x40000000
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 7899


class Host(Machine):
    """A machine with a network of its own, in which its processes live.

    Attributes:
        address: where the other host reaches it.
    """

    def __init__(self, root: Path, namespace: str, address: str) -> None:
        super().__init__(root)
        self.address = address
        self.port = PORT
        self.environ["CLAUDE_PEERS_PORT"] = str(PORT)
        self.prefix = ("ip", "netns", "exec", namespace)
        self._namespace = namespace

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread open its sockets in the host's network."""
        with open("/proc/thread-self/ns/net") as before, open(self._path) as within:
            _enter(within.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def wait_for_broker(self, **given: Any) -> int:
        with self.inside():
            return super().wait_for_broker(**given)

    def post(self, path: str, body: Any = None) -> Any:
        with self.inside():
            return super().post(path, body)

    def lead(self, **environ: str) -> "subprocess.Popen[bytes]":
        """Start a node that listens for other machines, and wait for it to lead."""
        node = self.start("serve", CLAUDE_PEERS_BIND="0.0.0.0", **environ)
        self.wait_for_broker()
        return node

    def connections(self) -> int:
        """Return how many connections to the broker's outer address are established."""
        ends = subprocess.run(
            [*self.prefix, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[1:]
        packed = socket.inet_aton(self.address)[::-1].hex().upper()
        local = f"{packed}:{PORT:04X}"
        return sum(words[1] == local and words[3] == "01" for words in map(str.split, ends))

    @property
    def _path(self) -> str:
        return f"/run/netns/{self._namespace}"

    def _count(self) -> list[str]:
        with self.inside():
            return super()._count()


class Tunnel:
    """What `ssh -L` does: a port of one host's loopback leads to one of another's."""

    def __init__(self, near: Host, far: Host) -> None:
        self._far = far
        with near.inside():
            self._listener = socket.create_server(("127.0.0.1", near.port))
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with self._far.inside():
                    far = socket.create_connection(("127.0.0.1", self._far.port), timeout=10)
                self._sockets += [near, far]
                for ends in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=_copy, args=ends))
                    self._threads[-1].start()


@contextlib.contextmanager
def two_hosts(root: Path) -> Iterator[tuple[Host, Host]]:
    """Yield two hosts that reach each other.

    Raises:
        OSError: this user may not make networks; the text says why.
    """
    names = [f"cp-{uuid.uuid4().hex[:8]}" for _ in ADDRESSES]
    with contextlib.ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        first, second = names
        near, far = (f"v{name[-8:]}" for name in names)
        _ip(
            "link",
            "add",
            near,
            "netns",
            first,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            second,
        )
        hosts = []
        for name, link, address in zip(names, (near, far), ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            _ip("-n", name, "link", "set", link, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            hosts.append(Host(root / name, name, address))
            stack.callback(hosts[-1].close)
        eventually(lambda: _reach(*hosts), what="the wire")
        yield hosts[0], hosts[1]


def _reach(near: Host, far: Host) -> bool:
    """Whether one host gets any answer of the other, be it that nobody listens."""
    with near.inside(), socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((far.address, 9)) == 111


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OSError("there is no `ip` program") from None
    if done.returncode:
        raise OSError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
