"""A TCP proxy on 127.0.0.1 that breaks what it carries, in ways that change while it runs.

A broker refuses requests that name another port than its own. So where a request names this
proxy's, the broker's is put in its place, which has as many digits.

Each direction has a fault of its own. Bytes that a fault holds back go on, in order, once it is
over, as TCP would send them again; nothing is ever dropped from the middle of a connection.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

BOUND = 10.0
CHUNK = 64 * 1024
ROUNDS = 10
"""Rounds of the event loop in which what it has begun is done."""
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Pass:
    """Bytes go on as they come."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Bytes go on after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Connections stay open, and nothing goes on, not even their end."""


@dataclass(frozen=True, slots=True)
class Trickle:
    """So many bytes go on in a second, one by one."""

    per_second: float = 1.0


@dataclass(frozen=True, slots=True)
class Cut:
    """The next bytes that contain `at` are cut off after `keep` of them, and both ends are reset.

    It happens once; from then on everything passes.
    """

    at: bytes = b""
    keep: int = 0


Fault: TypeAlias = Pass | Delay | BlackHole | Trickle | Cut
PASS = Pass()
BLACK_HOLE = BlackHole()
REQUESTS, ANSWERS = "requests", "answers"


class _ResetError(Exception):
    """A fault ended the connection."""


class FaultProxy:
    """Carries connections to `target` until it is closed.

    Attributes:
        port: where it listens.
        cuts: how often a `Cut` has happened.
        accepted: how many connections came.
        carried: bytes that went on, by direction.
    """

    def __init__(self, target: int) -> None:
        self.cuts = 0
        self.accepted = 0
        self.carried = {REQUESTS: 0, ANSWERS: 0}
        self._target = target
        self._faults: dict[str, Fault] = {REQUESTS: PASS, ANSWERS: PASS}
        self._carrying: dict[asyncio.Task[None] | None, list[asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open(self) -> int:
        """How many connections are being carried."""
        return len(self._carrying)

    def set(self, *, requests: Fault = PASS, answers: Fault = PASS) -> None:
        """Treat what comes from now on, and what is held back, like this."""

        async def change() -> None:
            self._faults = {REQUESTS: requests, ANSWERS: answers}
            self._changed.set()
            self._changed = asyncio.Event()

        self._run(change())

    def heal(self) -> None:
        """Let everything pass."""
        self.set()

    def reset(self) -> None:
        """Reset every connection there is, with what it held back."""
        self._run(self._end())

    def close(self) -> None:
        """Reset everything and listen no more."""

        async def end() -> None:
            # A server that closes leaks what it is accepting (asyncio's selector loop).
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            await self._end()
            self._server.close()
            await _settle()

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND)

    async def _end(self) -> None:
        await _settle()
        while any(len(ends) < 2 for ends in self._carrying.values()):
            await _settle()  # it is connecting: what is cut off in that could leave a socket
        tasks = list(self._carrying)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _settle()

    def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.ensure_future(self._connect(reader, client))
        self._carrying[task] = [client]
        task.add_done_callback(self._done)

    async def _connect(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        back, broker = await asyncio.open_connection("127.0.0.1", self._target)
        self._carrying[task].append(broker)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(REQUESTS, reader, broker))
            pumps.create_task(self._pump(ANSWERS, back, client))

    def _done(self, task: asyncio.Task[None]) -> None:
        in_order = not task.cancelled() and task.exception() is None
        for writer in self._carrying.pop(task):
            if in_order:
                writer.close()
            else:
                _reset(writer)

    async def _pump(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        mine, theirs = (f"127.0.0.1:{port}".encode() for port in (self.port, self._target))
        while chunk := await reader.read(CHUNK):
            named = chunk.replace(mine, theirs) if way == REQUESTS else chunk
            await self._carry(way, named, writer)
        await self._unless(lambda: isinstance(self._faults[way], BlackHole))
        writer.write_eof()

    async def _carry(self, way: str, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        delayed = False
        while chunk:
            match self._faults[way]:
                case BlackHole():
                    await self._changed.wait()
                case Delay(seconds) if not delayed:
                    await self._pause(seconds)
                    delayed = True
                case Trickle(per_second):
                    await self._write(way, chunk[:1], writer)
                    chunk = chunk[1:]
                    await self._pause(1 / per_second)
                case Cut(at, keep) if at in chunk:
                    await self._write(way, chunk[:keep], writer)
                    self._faults[way] = PASS
                    self.cuts += 1
                    raise _ResetError
                case _:
                    await self._write(way, chunk, writer)
                    chunk = b""

    async def _write(self, way: str, part: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await writer.drain()
        self.carried[way] += len(part)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than this fault lasts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _unless(self, held: Callable[[], bool]) -> None:
        while held():
            await self._changed.wait()


async def _settle() -> None:
    for _ in range(ROUNDS):
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other end sees a reset."""
    if not writer.transport.is_closing():
        connected = writer.transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
