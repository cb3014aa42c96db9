"""The two kinds of process: a session with its node, and a node by itself."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from claude_peers.core.election import Role
from claude_peers.core.errors import ClaudePeersError
from claude_peers.host import files, paths
from claude_peers.node.node import Node
from claude_peers.node.place import UnusableDatabaseError
from claude_peers.session.early import Early
from claude_peers.session.server import Session
from claude_peers.session.stdio import take_over
from claude_peers.settings import Settings

log = logging.getLogger(__name__)

GOODBYE = 0.020
"""Seconds to tell the broker that a session ends; nothing depends on it."""
LOG_SIZE = 1024 * 1024
_IGNORED = ("SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE")


def session(settings: Settings, early: Early, *, problem: ClaudePeersError | None = None) -> None:
    """Serve one agent over stdio until it closes its end, then end the process."""
    # Before there is an event loop: it must not get descriptors that are meant for the client.
    wire = take_over()
    _run(_session(settings, early, wire, problem))


def node(
    settings: Settings, ready: Callable[[str], None], cannot: Callable[[ClaudePeersError], None]
) -> None:
    """Take part in the election without an agent, until a signal.

    A node whose database cannot be used from the first ends at once, with exit code 1.

    Args:
        settings: what the user decided.
        ready: told each role.
        cannot: told each new reason why there is no broker.
    """
    _run(_node(settings, ready, cannot))


def _run(main: Coroutine[Any, Any, int]) -> None:
    # Not asyncio.run: at its end that waits for threads, and one may be asking the network.
    _exit(asyncio.Runner().run(main))


async def _session(
    settings: Settings, early: Early, wire: tuple[int, int], problem: ClaudePeersError | None
) -> int:
    running: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal running
        if problem is None:
            running = asyncio.ensure_future(network.run())

    served = Session(settings, begin=begin, problem=problem)
    network = Node(settings, served.client)
    with _endings(served.ended.set):
        await served.run(early, wire)
        if served.client.connected:
            with contextlib.suppress(ClaudePeersError):
                goodbye = {"id": served.client.peer_id}
                await served.client.call("/unregister", goodbye, within=GOODBYE)
        await network.stop()
        if running is not None:
            running.cancel()
    return 0


async def _node(
    settings: Settings, ready: Callable[[str], None], cannot: Callable[[ClaudePeersError], None]
) -> int:
    stop = asyncio.Event()
    network = Node(settings)
    served, failed = False, False

    def changed(role: Role) -> None:
        nonlocal served
        served = True
        if not failed:
            ready(role.value)

    def troubled(error: ClaudePeersError) -> None:
        nonlocal failed
        cannot(error)
        # Who has served once goes on: others may use the broker meanwhile, or it passes.
        if isinstance(error, UnusableDatabaseError) and not served:
            failed = True
            stop.set()

    network.changed, network.troubled = changed, troubled
    with _endings(stop.set, parent=False):
        running = asyncio.ensure_future(network.run())
        await stop.wait()
        await network.stop()
        running.cancel()
    return int(failed)


@contextlib.contextmanager
def _endings(end: Callable[[], None], *, parent: bool = True) -> Iterator[None]:
    """Call `end` for a signal that asks to end, or when the parent has died."""
    loop = asyncio.get_running_loop()
    for name in _IGNORED:
        if hasattr(signal, name):
            # A stopped terminal job must not stop everybody's broker.
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            _on_signal(loop, getattr(signal, name), end)
    watched = _watch_parent(loop, end) if parent else None
    try:
        yield
    finally:
        if watched is not None:
            loop.remove_reader(watched)
            os.close(watched)


def _on_signal(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, end: Callable[[], None]
) -> None:
    try:
        loop.add_signal_handler(number, end)
    except NotImplementedError:  # pragma: no cover - Windows has no signal handlers on its loop
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))


def _watch_parent(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> int | None:
    """End with the parent even if somebody else holds our stdin open."""
    if not hasattr(os, "pidfd_open"):  # pragma: no cover - elsewhere the end of stdin has to do
        return None
    try:
        fd = os.pidfd_open(os.getppid())
    except OSError:
        return None
    loop.add_reader(fd, end)
    return fd


def start_logging(settings: Settings, *, verbose: bool) -> None:
    """Log to the file where the platform keeps logs; `verbose` adds stderr and details.

    Message text is never logged. A folder that cannot be written only costs the log.
    """
    root = logging.getLogger("claude_peers")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    form = logging.Formatter(f"%(asctime)s {os.getpid()} %(levelname)s %(name)s: %(message)s")
    handlers: list[logging.Handler] = []
    if verbose:
        handlers.append(logging.StreamHandler(sys.stderr))
    with contextlib.suppress(OSError, ClaudePeersError):
        # Where a setting was refused, there are none that tell the environment.
        handlers.append(_log_file(paths.log_folder(settings.environ or os.environ)))
    for handler in handlers:
        handler.setFormatter(form)
        root.addHandler(handler)
    root.propagate = False


def _log_file(folder: str) -> logging.Handler:
    files.private_folder(folder)
    path = os.path.join(folder, "claude-peers.log")
    if os.path.exists(path) and os.path.getsize(path) > LOG_SIZE:
        os.replace(path, path + ".1")
    files.private_file(path)
    return logging.FileHandler(path, encoding="utf-8", delay=True)


def _exit(code: int) -> None:
    """End at once: everything is closed, and the interpreter's own clean-up takes longer."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    logging.shutdown()
    os._exit(code)
