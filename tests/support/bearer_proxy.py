"""A loopback proxy that adds a token, for MCP clients that cannot be given a header.

What it changes besides is its own address, to that of the broker behind it, in Host and Origin;
any other host or origin goes through as it came.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    behind: int
    token: str


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a message."""
        self._pass_on()

    def do_GET(self) -> None:
        """Take the request for a stream."""
        self._pass_on()

    def do_DELETE(self) -> None:
        """Take the end of a session."""
        self._pass_on()

    def _pass_on(self) -> None:
        """Pass the request on with the token, and the answer back."""
        mine, theirs = (f":{port}" for port in (self.server.server_port, self.server.behind))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {"Authorization": f"Bearer {self.server.token}"}
        for name, value in self.headers.items():
            if name.lower() in ("host", "origin"):
                headers[name] = value.replace(mine, theirs)
            elif name.lower() not in HOP:
                headers[name] = value
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def bearer_proxy(behind: int, token: str) -> Iterator[int]:
    """Run the proxy in front of a port for as long as the block runs; gives its own port."""
    with _Server(("127.0.0.1", 0), _Request) as server:
        server.behind, server.token = behind, token
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)
