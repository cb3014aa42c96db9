"""A broker in this very process: on a thread of its own, with a store in memory."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self

from claude_peers.broker.broker import Broker
from claude_peers.broker.context import Options
from claude_peers.broker.ports import Here
from claude_peers.core.delivery import DELIVERIES
from claude_peers.core.limits import Limits
from claude_peers.core.models import Peer, Process
from claude_peers.gateway.app import App
from claude_peers.gateway.server import Server
from claude_peers.host import processes
from claude_peers.stores.memory import MemoryStore
from claude_peers.transports.live import LiveConnections
from claude_peers.wire import frames, proof

SECRET = b"s" * 32
BOUND = 15.0
NO_LIMITS = Limits(per_minute=0, mailbox=0)


class Clock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Gate:
    """Holds the calls of one method of the store until it is opened."""

    def __init__(self, running: "Running", method: str) -> None:
        self.entered = threading.Event()
        self.calls = 0
        self._running = running
        self._open = asyncio.Event()
        self._original = getattr(running.store, method)
        setattr(running.store, method, self._held)

    def open(self) -> None:
        self._running.do(self._open.set)

    async def _held(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        self.entered.set()
        await self._open.wait()
        return await self._original(*given, **named)


class Running:
    """A broker that is being served.

    Attributes:
        port: where.
        faults: what its event loop had to complain about; a test expects nothing.
    """

    def __init__(
        self,
        *,
        require_token: bool = False,
        limited: bool = False,
        uid: int | None = None,
        deliveries: int = DELIVERIES,
        fleet_secret: bytes = b"",
        **server: Any,
    ):
        self.store = MemoryStore(deliveries)
        self.faults: list[dict[str, Any]] = []
        self.connections = LiveConnections(self.store, self._find)
        self.broker = Broker(
            self.store,
            self.connections,
            clock=Clock(),
            here=Here(host="here", boot="b", identify=processes.identify, alive=processes.alive),
            options=Options(
                limits=Limits() if limited else NO_LIMITS,
                require_token=require_token,
                fleet_secret=fleet_secret,
            ),
        )
        self.app = App(self.broker, secret=SECRET, status=lambda: {"sessions": 7})
        me = processes.user_id() if uid is None else uid
        self.server = Server(self.app, self.connections, uid=me, **server)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, fault: self.faults.append(fault))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.run(self.broker.open(Process(pid=os.getpid(), started="1")))
        self.run(self.server.start(listener))

    def _find(self, peer_id: str) -> Peer | None:
        return self.broker.roster.get(peer_id)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the broker's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND)

    def start(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Start a coroutine on the broker's loop and return its future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def do(self, call: Callable[..., Any], *given: Any) -> Any:
        """Call a function on the broker's loop and return its result."""

        async def work() -> Any:
            return call(*given)

        return self.run(work())

    def hold(self, method: str) -> Gate:
        """Hold the calls of a method of the store."""
        return Gate(self, method)

    def close(self) -> None:
        self.run(self._end())
        ledger = self.run(MemoryStore.ledger(self.store))  # its own, whatever a test puts there
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()
        assert not self.faults, self.faults
        assert ledger.balanced, ledger

    async def _end(self) -> None:
        await self.server.stop_accepting(within=0.01)
        self.server.hang_up()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # what was hung up is told so


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Running]:
    """Serve a broker for as long as the block runs."""
    serving = Running(**options)
    try:
        yield serving
    finally:
        serving.close()


class Wire:
    """The client's end of one connection, byte by byte."""

    def __init__(self, port: int, *, receive: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(BOUND)
        if receive is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.port = port
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def leave(self, how: str) -> None:
        """End this side: `half` of the connection, or `close` it, or so that it is `reset`."""
        if how == "half":
            self.socket.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to and including `mark`."""
        while mark not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    def rest(self) -> bytes:
        """Return everything until the other side ends."""
        while data := self.socket.recv(65536):
            self.buffer += data
        found, self.buffer = self.buffer, b""
        return found

    def answer(self, *, bare: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next answer; a bare one has no body."""
        head = self.until(b"\r\n\r\n").decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        length = 0 if bare else int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(first.split(" ")[1]), headers, body

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """POST JSON and return status and JSON."""
        self.send(post(self.port, path, body or {}, **headers))
        status, _, answer = self.answer()
        return status, json.loads(answer)


class LiveWire(Wire):
    """A live connection, frame by frame.

    Attributes:
        early: frames that came while an answer was awaited.
    """

    def __init__(self, port: int, *, receive: int | None = None) -> None:
        super().__init__(port, receive=receive)
        self.early: list[dict[str, Any]] = []

    def upgrade(self, *, nonce: str = "n1") -> dict[str, str]:
        """Ask for the upgrade and return the headers of the answer."""
        self.send(upgrade(self.port, nonce=nonce))
        status, headers, _ = self.answer(bare=True)
        assert status == 101, headers
        self.challenge = headers[proof.CHALLENGE_HEADER]
        return headers

    def frame(self, number: int, operation: str, body: Any = None) -> None:
        self.send(frames.request(number, operation, body or {}))

    def read(self) -> Any:
        """Return the next frame."""
        return json.loads(self.until(b"\n"))

    def call(self, number: int, operation: str, body: Any = None) -> tuple[int, Any]:
        """Send a request and return status and body of its answer; keep what comes before it."""
        self.frame(number, operation, body)
        while (frame := self.read()).get("re") != number:
            self.early.append(frame)
        return frame["status"], frame["body"]

    def text(self) -> str:
        """Return the text of the next push."""
        while True:
            frame = self.early.pop(0) if self.early else self.read()
            if "message" in frame:
                return str(frame["message"]["text"])

    def join(self, **registration: Any) -> dict[str, Any]:
        """Upgrade and register, with proof of the secret; return the answer."""
        self.upgrade()
        known = proof.client_proof(SECRET, self.challenge)
        status, joined = self.call(1, "/register", {"proof": known, **registration})
        assert status == 200, joined
        return joined


def head(port: int, method: str, path: str, **headers: str) -> bytes:
    """Return a request's head; `_` stands for `-` in names, an empty value leaves one out."""
    lines = {"Host": f"127.0.0.1:{port}"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    told = [f"{name}: {value}" for name, value in lines.items() if value]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *told, "", ""]).encode()


def post(port: int, path: str, body: Any, **headers: str) -> bytes:
    """Return a POST of JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content_Type": "application/json", "Content_Length": str(len(raw)), **headers}
    return head(port, "POST", path, **given) + raw


def upgrade(port: int, *, nonce: str = "n1", **headers: str) -> bytes:
    """Return the request for a live connection."""
    given = {"Connection": "Upgrade", "Upgrade": frames.PROTOCOL, **headers}
    return head(port, "GET", frames.LIVE_PATH, **given, **{proof.NONCE_HEADER: nonce})
