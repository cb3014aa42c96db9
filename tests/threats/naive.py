"""A broker as one writes it when nobody attacks: it believes every request.

It is the control of every test here that sends a request: what our broker refuses has to succeed
against this one, or the request would be no attack.
"""

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class NaiveBroker:
    """Peers and mail in memory, and what each request does to them.

    Attributes:
        log: what it tells about its work.
    """

    def __init__(self) -> None:
        self.peers: dict[str, dict[str, Any]] = {}
        self.mail: list[dict[str, Any]] = []
        self.log: list[str] = []
        self._numbers = iter(range(1, 1_000_000))

    def register(self, body: dict[str, Any]) -> Any:
        pid = str(body.get("pid"))
        for peer_id, peer in list(self.peers.items()):
            if peer["pid"] == pid:  # a pid is believed, and has one peer
                del self.peers[peer_id]
        peer_id = f"peer{next(self._numbers):04}"
        peer = {"id": peer_id, "summary": "", "webhook": None, **body, "pid": pid}
        self.peers[peer_id] = peer
        return {"id": peer_id, "token": f"token-of-{peer_id}"}

    def list_peers(self, _body: dict[str, Any]) -> Any:
        return list(self.peers.values())

    def set_summary(self, body: dict[str, Any]) -> Any:
        self.peers[body["id"]]["summary"] = body["summary"]
        return {"ok": True}

    def unregister(self, body: dict[str, Any]) -> Any:
        self.peers.pop(body["id"], None)
        return {"ok": True}

    def send_message(self, body: dict[str, Any]) -> Any:
        self.mail.append({**body, "id": next(self._numbers)})
        self.log.append(f"message from {body['from_id']}: {body['text'][:80]}")
        webhook = self.peers.get(body["to_id"], {}).get("webhook")
        if webhook:
            urllib.request.urlopen(webhook, data=b"{}", timeout=5).close()
        return {"ok": True}

    def peek_messages(self, body: dict[str, Any]) -> Any:
        return {"messages": [each for each in self.mail if each["to_id"] == body["id"]]}

    def poll_messages(self, body: dict[str, Any]) -> Any:
        found = self.peek_messages(body)
        self.ack_messages(body)
        return found

    def ack_messages(self, body: dict[str, Any]) -> Any:
        self.mail = [each for each in self.mail if each["to_id"] != body["id"]]
        return {"ok": True}

    def step_down(self, _body: dict[str, Any]) -> Any:
        self.peers.clear()  # what it knows ends with it
        return {"ok": True}

    def mcp(self, _body: dict[str, Any]) -> Any:
        return self.list_peers({})  # whatever tool was called

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """Serve a POST of whatever type, from whomever."""
        operation = getattr(self, path.rpartition("/")[2].replace("-", "_"))
        return operation(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    broker: NaiveBroker

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.broker.log.append(f"{client_address} hung up")


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out in one piece
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._tell(self.server.broker.answer(urlsplit(self.path).path, json.loads(body)))

    def do_GET(self) -> None:
        if self.headers and self.headers.get("Upgrade"):
            self.send_response(101)
            self.end_headers()
            self.close_connection = True
        elif self.path.startswith("/events"):
            self._tell(self.server.broker.peek_messages({"id": self.path.partition("=")[2]}))
        elif self.path == "/agent-cards":
            self._tell(self.server.broker.list_peers({}))
        else:
            self._tell({"status": "ok", "peers": len(self.server.broker.peers)})

    def do_OPTIONS(self) -> None:
        self._tell({})

    def _tell(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        if self.request_version != "HTTP/0.9":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            for name in ("Origin", "Methods", "Headers"):
                self.send_header(f"Access-Control-Allow-{name}", "*")
            self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *given: object) -> None:  # noqa: A002 - http.server's
        self.server.broker.log.append(format % given)


@contextlib.contextmanager
def naive() -> Iterator[tuple[int, NaiveBroker]]:
    """Serve one for as long as the block runs; yield its port and itself."""
    with _Server(("127.0.0.1", 0), _Requests) as server:
        server.broker = NaiveBroker()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], server.broker
        finally:
            server.shutdown()
            thread.join()
