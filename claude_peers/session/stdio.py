"""Lines in from one descriptor and out to another, without ever blocking the event loop.

Clients start us with pipes or with sockets, people and scripts with files, terminals or nothing.
What the loop can wait for, it waits for; for the rest (and on Windows) a thread does the waiting.
A terminal counts as the rest, because making it non-blocking would change it for its other users.
"""

import asyncio
import os
import queue
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from claude_peers.session.lines import Discarded, Splitter

CHUNK: Final = 256 * 1024
DROP_LINES: Final = 256
DROP_BYTES: Final = 4 * 1024 * 1024
"""With more than so much waiting to be written, pushes are refused."""

Done = Callable[[bool], None]


def take_over() -> tuple[int, int]:
    """Return private copies of stdin and stdout, and point the public ones elsewhere.

    From here on a stray `print`, also one in a child process, goes to stderr, and nobody else
    reads the client's lines. To be called before anything is opened: what is opened while a
    standard descriptor is closed takes its place.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:  # closed by whoever started us
            os.dup2(null, fd)
    wire = _private(0), _private(1)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > 2:  # noqa: PLR2004 - the last standard descriptor
        os.close(null)
    return wire


def _private(fd: int) -> int:
    if sys.platform == "win32":  # pragma: no cover - Windows has no fcntl
        return os.dup(fd)
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    return fcntl(fd, F_DUPFD_CLOEXEC, 3)


def waitable(mode: int, *, platform: str = sys.platform) -> bool:
    """Whether an event loop can wait for a descriptor of this mode without harm."""
    return platform != "win32" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


class Input:
    """The lines of one descriptor.

    Args:
        fd: what to read; it stays open.
        receive: is given each line.
        ended: is called once, at the end of the input or when it broke.
        oversized: is given what is left of each line that was too long.
        paused: asked before each line; once true, nothing is read until `resume` is called.
        initial: what has been read already.
    """

    def __init__(
        self,
        fd: int,
        receive: Callable[[bytes], None],
        *,
        ended: Callable[[], None],
        oversized: Callable[[Discarded], None] = lambda _line: None,
        paused: Callable[[], bool] = lambda: False,
        initial: bytes = b"",
    ) -> None:
        self._fd = fd
        self._receive = receive
        self._ended = ended
        self._oversized = oversized
        self._paused = paused
        self._splitter = Splitter()
        self._splitter.feed(initial)
        self._loop = asyncio.get_running_loop()
        self._taking = self._over = self._closed = False
        self._thread: threading.Thread | None = None
        self._wanted = threading.Semaphore(0)
        self._reading = False

    def start(self) -> None:
        """Begin, with what has been read already."""
        if not waitable(os.fstat(self._fd).st_mode):
            self._thread = threading.Thread(target=self._read_all, name="stdin", daemon=True)
            self._thread.start()
        else:
            os.set_blocking(self._fd, False)
        self._take()

    def resume(self) -> None:
        """Go on after a pause; without one nothing happens."""
        if not self._reading and not self._taking:
            self._take()

    def close(self) -> None:
        """Read no more and call nobody any more."""
        self._closed = True
        self._want(more=False)
        self._wanted.release()

    def _take(self) -> None:
        """Hand out what is there, then ask for more."""
        self._taking = True
        try:
            while self._splitter.lines and not self._paused() and not self._closed:
                self._receive(self._splitter.lines.popleft())
            while self._splitter.oversized and not self._closed:
                self._oversized(self._splitter.oversized.popleft())
        finally:
            self._taking = False
        if self._splitter.lines or self._closed:
            self._want(more=False)
        elif self._over:
            self._closed = True
            self._ended()
        else:
            self._want(more=True)

    def _want(self, *, more: bool) -> None:
        if more == self._reading:
            return
        self._reading = more
        if self._thread is not None:
            if more:
                self._wanted.release()
        elif more:
            self._loop.add_reader(self._fd, self._readable)
        else:
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        try:
            chunk = os.read(self._fd, CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the client reset the connection
            chunk = b""
        self._read(chunk)

    def _read(self, chunk: bytes) -> None:
        if self._closed:
            return
        if self._thread is not None:
            self._reading = False  # the thread reads once each time it is asked
        if chunk:
            self._splitter.feed(chunk)
        else:
            self._over = True
            self._splitter.end()
            self._want(more=False)
        self._take()

    def _read_all(self) -> None:
        chunk = b"-"
        while chunk and self._wanted.acquire() and not self._closed:
            try:
                chunk = os.read(self._fd, CHUNK)
            except OSError:
                chunk = b""
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._read, chunk)


class Output:
    """Lines to one descriptor, in order.

    Whoever wants to know what became of a line passes `done`, which is called exactly once: with
    True once every byte was handed to the system, with False if that cannot happen any more.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[memoryview, Done | None]] = deque()
        self._size = 0
        self._broken = False
        self._empty: asyncio.Future[None] | None = None
        self._lines: queue.SimpleQueue[memoryview] | None = None
        if waitable(os.fstat(fd).st_mode):
            os.set_blocking(fd, False)
        else:
            self._lines = queue.SimpleQueue()
            threading.Thread(target=self._write_all, name="stdout", daemon=True).start()

    def write(self, line: bytes, done: Done | None = None, *, droppable: bool = False) -> bool:
        """Write `line` and a line end; return whether it was taken.

        A droppable line is refused while much is waiting.
        """
        crowded = len(self._waiting) > DROP_LINES or self._size > DROP_BYTES
        if self._broken or (droppable and crowded):
            if done is not None:
                done(False)  # noqa: FBT003 - the callback's one argument
            return False
        view = memoryview(line + b"\n")
        self._waiting.append((view, done))
        self._size += len(view)
        if self._lines is not None:
            self._lines.put(view)
        elif len(self._waiting) == 1:
            self._flush()
        return True

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing waits to be written; return whether that came true in time."""
        if self._waiting:
            self._empty = self._empty or self._loop.create_future()
            await asyncio.wait([self._empty], timeout=timeout)
        return not self._waiting and not self._broken

    def close(self) -> None:
        """Write no more; whatever still waits is lost, and its owners are told."""
        if not self._broken:
            self._break()

    def _flush(self) -> None:
        while self._waiting:
            view, done = self._waiting[0]
            try:
                count = os.write(self._fd, view)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._fd, self._flush)
                return
            except OSError:  # the client is gone
                self._break()
                return
            if count < len(view):
                self._waiting[0] = view[count:], done
                self._size -= count
            else:
                self._finish(whole=True)
        self._loop.remove_writer(self._fd)

    def _finish(self, *, whole: bool) -> None:
        view, done = self._waiting.popleft()
        self._size -= len(view)
        if done is not None:
            done(whole)
        if self._empty is not None and not self._waiting:
            self._empty.set_result(None)
            self._empty = None

    def _break(self) -> None:
        self._broken = True
        if self._lines is None:
            self._loop.remove_writer(self._fd)
        else:
            self._lines.put(memoryview(b""))
        while self._waiting:
            self._finish(whole=False)

    def _write_all(self) -> None:
        """Write what is in `_lines`, in a thread; an empty line ends it."""
        lines = self._lines
        while lines is not None and (view := lines.get()):
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError:
                self._tell(self._break)
                return
            self._tell(self._wrote)

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(what)

    def _wrote(self) -> None:
        if self._waiting:
            self._finish(whole=True)
