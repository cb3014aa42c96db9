"""The route that wakes an idle session: a named pipe on which a hook of its client waits.

The client starts the hook in the background when the session starts and whenever a turn ends. The
hook reads `<folder>/<client pid>` to its end, prints what it got and exits with 2, and with that
the client wakes the session and shows the text to the model. So one waiter takes one text.

Of the pipe, each inode serves for one push:

- From the start we hold its write end. As long as we live the waiter goes on waiting, and if we
  are killed it sees the end and goes: no waiter outlives its session.
- A waiter is armed if somebody reads. Opening for writing without blocking tells (ENXIO), and as
  we hold a write end already, opening and closing once more ends no waiter.
- Before a push lets go of the write end, a fresh pipe takes the name. So whatever is pushed while
  the waiter still reads meets a pipe on which nobody waits, and is not lost behind its back.

Beside the pipe lies `<client pid>.pid`, by which the hook sees to it that only one waits.
"""

import asyncio
import logging
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress

from claude_peers.core.errors import StoreError
from claude_peers.host import processes
from claude_peers.host.files import private_folder

PATIENCE = 2.0
"""Seconds in which the waiter has to take what its pipe cannot hold."""
_HERE = hasattr(os, "mkfifo")
_FLAGS: int = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_OURS = re.compile(r"(\d+)(\.pid|\.new)?")
_MODE = 0o600

logger = logging.getLogger(__name__)


class Rewake:
    """Push by the hook that waits for us.

    Args:
        folder: where the pipes of all sessions lie.
        client_pid: the agent's client, after which the pipe is called.
        patience: seconds in which a waiter has to take a text that its pipe cannot hold.
        pipes: whether this system has named pipes; without them the route is never available.
    """

    name = "rewake"

    def __init__(
        self, folder: str, client_pid: int, *, patience: float = PATIENCE, pipes: bool = _HERE
    ) -> None:
        self.path = os.path.join(folder, str(client_pid))
        self._folder = folder
        self._patience = patience
        self._pipes = pipes
        self._closed = False
        self._end: int | None = None
        """The write end, while nobody pushes."""

    def open(self) -> None:
        """Make the pipe, or take over the one that a server of the same client left behind.

        Raises:
            StoreError: folder or pipe are not ours alone, or cannot be made.
        """
        if not self._pipes or self._closed or self._end is not None:
            return
        private_folder(self._folder)
        try:
            if not os.path.lexists(self.path):
                _unlink(f"{self.path}.pid")  # nobody waits yet: it tells of an earlier client
                _make(self.path)
            self._end = _write_end(self.path)
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be used: {error.strerror}",
                "Remove it, and make its folder yours and writable.",
            ) from error

    @property
    def available(self) -> bool:
        """Whether a waiter is armed, and no push is under way to it."""
        if self._end is None:
            return False
        try:
            probe = os.open(self.path, os.O_WRONLY | _FLAGS)
        except OSError:  # ENXIO: nobody reads
            return False
        try:
            return os.path.samestat(os.fstat(probe), os.fstat(self._end))
        finally:
            os.close(probe)

    async def push(self, text: str) -> bool:
        """Hand `text` to the waiter, which then ends and wakes the session.

        False with nothing handed over: nobody is armed, or another push has the waiter. False after
        a part, which only a text can meet that is longer than the pipe holds: the waiter stopped
        reading, and if it ever goes on it shows the beginning. A cancelled push may be the same.
        """
        data = text.encode("utf-8", "replace")
        end = self._end
        if end is None or not data.strip():  # a waiter that gets nothing ends in silence
            return False
        taken = _write(end, data)
        if not taken:
            return False
        self._end = None
        try:
            return await self._rest(end, memoryview(data)[taken:])
        finally:
            self._let_go(end)

    def close(self) -> None:
        """Remove the pipe and let a waiter end; a push that is under way does so when it ends."""
        self._closed = True
        end, self._end = self._end, None
        if end is not None:
            self._let_go(end)

    async def _rest(self, end: int, data: memoryview) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                while data:
                    await _writable(end)
                    taken = _write(end, data)
                    if not taken:
                        return False
                    data = data[taken:]
        except TimeoutError:
            return False
        return True

    def _let_go(self, end: int) -> None:
        """Close the write end, so that the waiter ends; by then the name must lead elsewhere."""
        try:
            if not self._closed:
                self._end = self._renew()
            elif self._leads_to(end):
                _unlink(self.path)
                _unlink(f"{self.path}.pid")
        finally:
            os.close(end)

    def _renew(self) -> int | None:
        draft = f"{self.path}.new"
        try:
            _unlink(draft)
            _make(draft)
            end = _write_end(draft)
            os.replace(draft, self.path)
        except (OSError, StoreError):
            logger.exception("No more waking of this session: its pipe cannot be made anew")
            _unlink(self.path)  # else the next waiter waits where nobody writes
            return None
        return end

    def _leads_to(self, end: int) -> bool:
        """Whether the name still is that of our pipe, and not of a successor's."""
        with suppress(OSError):
            return os.path.samestat(os.lstat(self.path), os.fstat(end))
        return False


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    found = processes.identify(pid)
    return found is not None and processes.alive(found)


def sweep(folder: str, *, alive: Callable[[int], bool] = is_running, pipes: bool = _HERE) -> None:
    """Remove the pipes of clients that have ended, and let go whoever still waits on one.

    Whatever else lies there is left alone.
    """
    if not pipes:
        return
    try:
        names = os.listdir(folder)
    except OSError:  # nobody has had a pipe yet
        return
    for name in names:
        found = _OURS.fullmatch(name)
        if found and not alive(int(found[1])):
            path = os.path.join(folder, name)
            with suppress(OSError):
                if stat.S_ISFIFO(os.lstat(path).st_mode):
                    os.close(os.open(path, os.O_WRONLY | _FLAGS))
            _unlink(path)


def _make(path: str) -> None:
    os.mkfifo(path, _MODE)
    os.chmod(path, _MODE)  # a umask may have taken even our own rights


def _write_end(path: str) -> int:
    """Open a pipe of ours for writing, whether or not somebody reads.

    Raises:
        StoreError: it is no pipe, another user's, or open to others.
    """
    _check(path, os.lstat(path))
    # With a reader of our own the write end opens at once; then that reader goes.
    reader = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        end = os.open(path, os.O_WRONLY | _FLAGS)
        try:
            _check(path, os.fstat(end))
        except StoreError:
            os.close(end)
            raise
    finally:
        os.close(reader)
    return end


def _check(path: str, found: os.stat_result) -> None:
    if not stat.S_ISFIFO(found.st_mode):
        raise StoreError(f"{path} is no named pipe", "Move it away.")
    if found.st_uid != os.getuid():
        raise StoreError(f"{path} belongs to user {found.st_uid} and not to you", "Remove it.")
    if stat.S_IMODE(found.st_mode) & ~_MODE:
        raise StoreError(f"Others may use {path}", f"Run `chmod 600 {path}`.")


def _write(end: int, data: bytes | memoryview) -> int:
    """Return how many bytes the pipe took, 0 if nobody reads or it is full."""
    try:
        return os.write(end, data)
    except OSError:
        return 0


async def _writable(end: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(end, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(end)


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
