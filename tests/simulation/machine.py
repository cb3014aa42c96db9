"""The machine beneath the product in a simulation: files, locks, processes, clocks and chance.

`installed` puts these in the place of the system's in the modules of `claude_peers` that use
them; each finds its world by the process whose code is running.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import filelock
from simulation.disk import Database
from simulation.network import Listener
from simulation.world import current

from claude_peers.broker import registration
from claude_peers.broker.ports import Here
from claude_peers.client import client, http, link
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.models import Process
from claude_peers.gateway import caller, server
from claude_peers.gateway.live import LiveProtocol
from claude_peers.host import leading
from claude_peers.host.sockets import SocketOwner
from claude_peers.node import leader, node, parts, port
from claude_peers.node.watchdog import TICK, TICKS
from claude_peers.session import inbound, repeats

USER = 1000
SECRET = b"s" * 32


class File:
    """One file; whoever has it open keeps it when its name is deleted."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.holder: Any = None


def _file(path: str) -> File | None:
    return current().world.files.get(path)


def _is_locked(path: str) -> bool:
    world, found = current().world, _file(path)
    return found is not None and found.holder is not None and world.mutation != "no lock"


FILES = SimpleNamespace(
    private_folder=lambda _path: None,
    private_file=lambda path: current().world.files.setdefault(path, File()),
    secret=lambda _folder: SECRET,
    keep_secret=lambda *_: None,
    is_locked=_is_locked,
    read_private=lambda path: (found := _file(path)) and found.content,
    write_private=lambda path, content: current().world.files.update({path: File(content)}),
)


class Lock:
    """In the place of `FileLock`: of one process, on one file, whatever becomes of its name."""

    def __init__(self, path: str, **_: Any) -> None:
        self._path = path
        self._file: File | None = None

    def acquire(self, *, blocking: bool) -> None:
        assert not blocking
        process = current().main
        found = process.world.files.setdefault(self._path, File())
        if process.world.mutation == "no lock":
            return
        if found.holder is not None:
            raise filelock.Timeout(self._path)
        found.holder, self._file = self, found
        process.closers.append(self.release)

    def release(self) -> None:
        if self._file is not None and self._file.holder is self:
            self._file.holder = None


class Watchdog:
    """In the place of the real one: a simulated thread that looks at its leader's loop."""

    def __init__(self, bite: Callable[[], None]) -> None:
        self._bite = bite
        self._missed = 0
        self._on = True

    def start(self) -> None:
        self._thread = current().main.thread()
        self._look_later()

    def beat(self) -> None:
        self._missed = 0

    def stop(self) -> None:
        if self._on:
            self._on = False
            self._thread.end()

    def _look_later(self) -> None:
        loop = self._thread.world.loop
        loop.call_later(TICK, self._look, context=self._thread.context)

    def _look(self) -> None:
        self._missed += 1
        if self._on and self._missed > TICKS:
            self._thread.world.note(self._thread.pid, "the watchdog bites")
            self._bite()
            # Its file stays open, and from here on the epoch alone keeps it from writing.
            self._thread.world.disk.left(self._thread.main)
        elif self._on:
            self._look_later()


class Clock:
    """The Clock port."""

    def wall(self) -> float:
        return current().world.wall()

    def monotonic(self) -> float:
        return current().world.loop.now


class StrangerHttp:
    """In the place of the client for upstream brokers: here there are none, only strangers."""

    def __init__(self, number: int, **_: Any) -> None:
        self._number = number

    def open(self) -> None:
        raise NoBrokerError(f"A stranger listens on {self._number}", "End that program.")


class NumberedLiveProtocol(LiveProtocol):
    """A connection whose place in a set does not depend on where it lies in memory."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        world = current().world
        world.numbered += 1
        self._number = world.numbered

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


def identify(pid: int) -> Process | None:
    """Return the simulated process of a pid."""
    found = current().world.find(pid)
    return Process(pid=pid, started=f"start of {pid}") if found else None


def _is_stopped(pid: int) -> bool:
    found = current().world.find(pid)
    return found is not None and "SIGSTOP" in found.stopped


def _revive(process: Process) -> None:
    found = current().world.find(process.pid)
    if found is not None:
        found.go_on()


def _owner(peer: tuple[str, int], me: tuple[str, int]) -> SocketOwner | None:
    found = current().world.network.owner(peer, me)
    return SocketOwner(USER, found.pid) if found else None


def _listener_uid(number: int) -> int | None:
    return USER if number in current().world.network.ports else None


def _listener_pids(number: int) -> list[int]:
    listener = current().world.network.ports.get(number)
    return [listener.owner.pid] if listener and listener.owner.pid else []


def _listen(address: str, number: int) -> Listener:
    listener = Listener()
    listener.bind((address, number))
    return listener


def _below(most: int) -> int:
    return current().world.rng.randrange(most)


def _wall() -> float:
    return current().world.wall()


def _bytes(count: int) -> bytes:
    return current().world.rng.randbytes(count)


OS = SimpleNamespace(path=os.path, getpid=lambda: current().pid, urandom=_bytes)
SECRETS = SimpleNamespace(
    token_hex=lambda count: _bytes(count).hex(),
    randbelow=_below,
    compare_digest=secrets.compare_digest,
)
PROCESSES = SimpleNamespace(
    identify=identify,
    is_stopped=_is_stopped,
    revive=_revive,
    user_id=lambda: USER,
    host_name=lambda: "here",
    boot_id=lambda: "boot",
)
OPEN_FILES = SimpleNamespace(most=lambda: 1024, allow_more=lambda: None)
SOCKETS = SimpleNamespace(
    owner=_owner,
    holds=lambda pid, inode: pid == inode,
    listener_uid=_listener_uid,
    listener_pids=_listener_pids,
)
TIME = SimpleNamespace(time=_wall, monotonic=lambda: current().world.loop.now)
PARTS = SimpleNamespace(
    Clock=Clock,
    Reach=parts.Reach,
    mcp=parts.mcp,
    here=lambda: Here(
        host="here",
        boot="boot",
        identify=identify,
        alive=lambda process: current().world.find(process.pid) is not None,
    ),
    options=parts.options,
    posts=parts.posts,
    announcer=parts.announcer,
    store=lambda _settings: Database(current().main),
)
SOCKET = SimpleNamespace(
    socket=Listener, AF_INET=2, SOCK_STREAM=1, SOL_SOCKET=1, SO_REUSEADDR=2, SHUT_RDWR=2
)
SYS = SimpleNamespace(
    platform="linux", setswitchinterval=lambda _seconds: None, getswitchinterval=lambda: 0.005
)

# A name that a module does not use is passed over; what is not replaced fails, as no real socket
# or lock is of any use in a world.
_REPLACED: tuple[tuple[Any, dict[str, Any]], ...] = (
    (filelock, {"FileLock": Lock}),
    (node, {"files": FILES, "processes": PROCESSES, "os": OS, "time": TIME}),
    (leader, {"FileLock": Lock, "Watchdog": Watchdog, "files": FILES, "listen": _listen, "os": OS}),
    (
        leader,
        {
            "open_files": OPEN_FILES,
            "parts": PARTS,
            "processes": PROCESSES,
            "socket": SOCKET,
            "sys": SYS,
        },
    ),
    (port, {"files": FILES, "processes": PROCESSES, "sockets": SOCKETS}),
    (leading, {"files": FILES, "sockets": SOCKETS}),
    (server, {"open_files": OPEN_FILES, "sockets": SOCKETS, "LiveProtocol": NumberedLiveProtocol}),
    (caller, {"sockets": SOCKETS, "secrets": SECRETS}),
    (registration, {"secrets": SECRETS}),
    (link, {"os": OS}),
    (client, {"os": OS}),
    (http, {"BrokerHttp": StrangerHttp}),
    (inbound, {"os": OS}),
    (repeats, {"time": TIME}),
)


class _Errors(logging.Handler):
    """The product's own word that something it does not expect has happened."""

    def emit(self, record: logging.LogRecord) -> None:
        if current().world.loop.burying:
            return
        if record.exc_info or "accounted" in record.getMessage():
            error = record.exc_info and record.exc_info[1]
            current().world.violated(f"logged: {record.getMessage()} {error!r}")


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Let the product run on simulated machines."""
    replaced = [
        (each, {name: it for name, it in new.items() if name in vars(each)})
        for each, new in _REPLACED
    ]
    before = [(each, {name: vars(each)[name] for name in new}) for each, new in replaced]
    product, errors = logging.getLogger("claude_peers"), _Errors()
    level, propagates = product.level, product.propagate
    try:
        for each, new in replaced:
            vars(each).update(new)
        product.setLevel(logging.ERROR)
        product.propagate = False
        product.addHandler(errors)
        yield
    finally:
        for each, old in before:
            vars(each).update(old)
        product.removeHandler(errors)
        product.setLevel(level)
        product.propagate = propagates
