"""A small HTTP server for a command: the broker's framing and guard, a thread a connection."""

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from claude_peers.core.errors import ClaudePeersError
from claude_peers.gateway import errors, framing, guard
from claude_peers.gateway.caller import GONE
from claude_peers.gateway.framing import Head
from claude_peers.gateway.openclaw import Told
from claude_peers.host import processes, sockets
from claude_peers.wire import codec

Serve = Callable[[Head, bytes], Told]
CONNECTIONS: Final = 64
WITHIN: Final = 15.0
"""Seconds that a client may take for its request, and again to read the answer."""
_CHUNK: Final = 64 * 1024
_LEAST: Final = 0.001


class LocalServer(socketserver.ThreadingTCPServer):
    """Serves on 127.0.0.1; one request a connection.

    Args:
        port: to listen on, 0 for any.
        serve: answers what has passed the guard.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, serve: Serve) -> None:
        self.serve = serve
        self.room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(("127.0.0.1", port), _Connection)
        # Where the system tells owners, a caller without one has hung up (`gateway.caller`).
        own = self.server_address[1]
        self.tells = sys.platform == "linux" and sockets.listener_uid(own) is not None

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn away who comes when there is no room."""
        del request, client_address
        return self.room.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection and make room again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()


class _Connection(socketserver.BaseRequestHandler):
    request: socket.socket
    server: LocalServer

    def handle(self) -> None:
        """Serve the connection's one request."""
        self._end = time.monotonic() + WITHIN
        # The system is asked first: whoever has hung up by the end of its request is nobody's.
        owner = sockets.owner(self.client_address[:2], self.request.getsockname()[:2])
        unknown = GONE if self.server.tells else None
        try:
            head, rest = self._head(owner.uid if owner else unknown)
            told = self.server.serve(head, self._body(head, rest))
        except ClaudePeersError as error:
            status, body = errors.response_for(error)
            told = Told(status, body)
        except OSError:
            return  # it has gone, or says nothing
        told.written(self._write(told))

    def _head(self, uid: int | None) -> tuple[Head, bytes]:
        buffer = bytearray()
        while (end := framing.head_end(buffer)) is None:
            buffer += self._more()
        head = framing.check(bytes(buffer[:end]))
        facts = guard.Facts(
            peer=self.client_address[0],
            uid=uid,
            own_uid=processes.user_id(),
            port=self.request.getsockname()[1],
        )
        guard.check(head, facts)
        return head, bytes(buffer[end:])

    def _body(self, head: Head, body: bytes) -> bytes:
        while len(body) < head.content_length:
            body += self._more()
        return body[: head.content_length]

    def _more(self) -> bytes:
        self.request.settimeout(max(self._end - time.monotonic(), _LEAST))  # 0 is for ever
        data = self.request.recv(_CHUNK)
        if not data:
            raise ConnectionAbortedError
        return data

    def _write(self, told: Told) -> bool:
        body = codec.dumps(told.body)
        lines = [
            f"HTTP/1.1 {told.status} {errors.reason(told.status)}",
            "Content-Type: application/json;charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in errors.SECURITY_HEADERS),
            "\r\n",
        ]
        self.request.settimeout(WITHIN)
        try:
            self.request.sendall("\r\n".join(lines).encode() + body)
        except OSError:
            return False
        return True
