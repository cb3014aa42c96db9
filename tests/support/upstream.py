"""A stand-in for upstream's broker: its requests, its answers, consumed on poll."""

import contextlib
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STAMP = "2025-01-01T00:00:00.000Z"


class Upstream:
    """Serves upstream's wire on a thread until it is closed.

    Args:
        port: where to listen.
        health: what it says of itself, if it only looks like a broker.

    Attributes:
        requests: path and body of what came, in order.
        peers: the registered peers by id.
        mail: undelivered messages by recipient.
    """

    def __init__(self, port: int, health: Any = None) -> None:
        self.health = health
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.peers: dict[str, dict[str, Any]] = {}
        self.mail: dict[str, list[dict[str, Any]]] = {}
        self._numbers = iter(range(1, 10_000))
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End as a process does: nobody listens and no connection is left."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
        self._server.hang_up()

    @property
    def about(self) -> Any:
        """The answer to `GET /health`."""
        return self.health or {"status": "ok", "peers": len(self.peers)}

    def join(self, summary: str) -> str:
        """Register somebody else; return the id."""
        return str(
            self.answer("/register", {"pid": os.getpid(), "cwd": "/", "summary": summary})["id"]
        )

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and body of the answer to a POST."""
        return 200, self.answer(path, body)

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer to a POST."""
        match path:
            case "/register":
                peer_id = f"peer{next(self._numbers):04}"
                self.peers[peer_id] = {
                    "id": peer_id, "git_root": None, "tty": None, "summary": "",
                    **body, "registered_at": STAMP, "last_seen": STAMP,
                }  # fmt: skip
                return {"id": peer_id}
            case "/list-peers":
                return [p for p in self.peers.values() if p["id"] != body.get("exclude_id")]
            case "/send-message":
                return self._send(body)
            case "/poll-messages":
                return {"messages": self.mail.pop(body["id"], [])}
            case "/set-summary":
                self.peers[body["id"]]["summary"] = body["summary"]
            case "/unregister":
                self.peers.pop(body["id"], None)
        return {"ok": True}

    def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["to_id"] not in self.peers:
            return {"ok": False, "error": f"Peer {body['to_id']} not found"}
        message = {**body, "id": next(self._numbers), "sent_at": STAMP, "delivered": 0}
        self.mail.setdefault(body["to_id"], []).append(message)
        return {"ok": True}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], upstream: Upstream) -> None:
        self.upstream = upstream
        self._connections: list[socket.socket] = []
        super().__init__(address, _Requests)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/health":
            self._tell(200, self.server.upstream.about)
        else:
            self._tell(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.upstream.requests.append((self.path, body))
        self._tell(*self.server.upstream.respond(self.path, body))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _tell(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
