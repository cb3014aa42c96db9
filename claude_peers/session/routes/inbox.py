r"""The route through the socket that Claude Code opens for messages to its session.

    {"type":"auth","token":"…"}\n
    {"type":"user","priority":"next","message":{"role":"user","content":"…"}}\n

One connection a line. The client answers nothing and drops in silence what comes too fast or what
it has read before, so texts that have to wait travel together in one line, lines keep a pace, and
each ends with a mark of its own. Only the session's own server may post: from others the client
holds messages back. The frame is not documented, which is why users have to ask for this route.
"""

import asyncio
import os
import secrets
import socket
import stat
import time
from collections.abc import Awaitable, Callable

from claude_peers.wire.codec import dumps

BURST = 5
"""Lines that may follow each other at once; of 80 the client lost 50."""
EVERY = 1.0
"""Seconds from one line to the next after that; at this pace none was lost."""
MOST = 60_000
"""Characters that travel together; the client took 300,000."""
PATIENCE = 2.0
"""Seconds the client has to take a line."""
_HERE = hasattr(socket, "AF_UNIX") and hasattr(os, "getuid")


class Pace:
    """When the next line may go: a few at once, then one at a time.

    Args:
        burst: how many may go at once after a silence.
        every: seconds in which one more may.
    """

    def __init__(self, burst: int = BURST, every: float = EVERY) -> None:
        self._room = (burst - 1) * every
        self._every = every
        self._due = 0.0
        """When all that went would have gone, had each kept its distance."""

    def wait(self, now: float) -> float:
        """Return the seconds until a line may go, 0 for at once."""
        return max(0.0, self._due - self._room - now)

    def spend(self, now: float) -> None:
        """Count a line that goes now."""
        self._due = max(self._due, now) + self._every


class _Batch:
    """Texts that go in one line, and whether they did."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.size = 0
        self.sent: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.size += len(text)


class Inbox:
    """Push by a line on the client's socket.

    Args:
        path: the socket, empty if the client has none.
        token: what the client authenticates us by, empty for none.
        clock: seconds that only grow.
        sleep: waits for so many seconds.
        patience: seconds the client has to take a line.
        sockets: whether this system has such sockets; without them the route is never available.
    """

    name = "inbox"

    def __init__(
        self,
        path: str,
        token: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: float = PATIENCE,
        sockets: bool = _HERE,
    ) -> None:
        self._path = path
        self._token = token
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._open = sockets and bool(path)
        self._pace = Pace()
        self._turn = asyncio.Lock()
        self._batch: _Batch | None = None
        self._refused: tuple[int, ...] | None = None
        self._mark = secrets.token_hex(3)
        self._lines = 0

    @property
    def available(self) -> bool:
        """Whether there is a socket of ours that has not refused us."""
        found = self._look() if self._open else None
        return found is not None and found != self._refused

    async def push(self, text: str) -> bool:
        """Post `text`, together with others if it has to wait for its turn.

        The wait is one pace at most for each line before it. After False nothing of it is seen, for
        the client drops a line without its end. A cancelled push may still go, with others.
        """
        if not self.available:
            return False
        batch = self._batch
        if batch is not None and batch.size + len(text) <= MOST:
            batch.add(text)
            return await asyncio.shield(batch.sent)
        batch = self._batch = _Batch()
        batch.add(text)
        try:
            await self._carry(batch)
        finally:
            if not batch.sent.done():
                batch.sent.set_result(False)
            if self._batch is batch:
                self._batch = None
        return batch.sent.result()

    def close(self) -> None:
        """Post nothing more; the socket is the client's and stays."""
        self._open = False

    async def _carry(self, batch: _Batch) -> None:
        async with self._turn:
            pause = self._pace.wait(self._clock())
            if pause:
                await self._sleep(pause)
            if self._batch is batch:
                self._batch = None  # who comes now is too late for this line
            if self.available:
                self._pace.spend(self._clock())
                batch.sent.set_result(await self._post(self._line(batch.texts)))

    def _line(self, texts: list[str]) -> bytes:
        self._lines += 1
        # The client drops a line it has read before, even if it means another message.
        content = "\n\n".join((*texts, f"[delivery {self._mark}-{self._lines}]"))
        message = {"role": "user", "content": content}
        return dumps({"type": "user", "priority": "next", "message": message}) + b"\n"

    async def _post(self, line: bytes) -> bool:
        proof = dumps({"type": "auth", "token": self._token}) + b"\n" if self._token else b""
        loop = asyncio.get_running_loop()
        here = self._look()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(0)
            try:
                async with asyncio.timeout(self._patience):
                    await loop.sock_connect(client, self._path)
                    await loop.sock_sendall(client, proof + line)
            except ConnectionRefusedError:
                self._refused = here
                return False
            except OSError:  # TimeoutError is one: a busy client may be quicker next time
                return False
        return True

    def _look(self) -> tuple[int, ...] | None:
        """Return what tells this socket from a later one, None if there is none of ours."""
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns
