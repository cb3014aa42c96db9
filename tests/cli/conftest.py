"""A command line run in this process against a scratch machine."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.machine import Machine

from claude_peers.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command line returned and printed."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The single JSON value on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The single JSON error on stderr."""
        return dict(json.loads(self.err)["error"])


Cli = Callable[..., Ran]


@pytest.fixture
def cli(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Return what runs a command line as a user of the scratch machine."""
    for name in [*os.environ]:
        if name.startswith(("CLAUDE", "AGENTMESH", "OPENAI")):
            monkeypatch.delenv(name)
    for name, value in machine.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main.run(words)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run


class Upstream:
    """A broker of another implementation, which knows no proofs and has one peer.

    Attributes:
        handing_over: how many requests it refuses because it leads no longer.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.peers = [{"id": "abcd1234", "pid": 7, "cwd": "/p", "summary": "", "last_seen": "now"}]
        self.refusal: str | None = None
        self.health: Any = {"status": "ok", "peers": 1}
        self.handing_over = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> Any:
        if path == "/list-peers":
            return self.peers
        if path == "/send-message" and self.refusal:
            return {"ok": False, "error": self.refusal}
        return self.health if path == "/health" else {"ok": True}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply()

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                upstream.requests.append((self.path, json.loads(self.rfile.read(length))))
                self._reply()

            def log_message(self, *_: object) -> None:
                pass

            def _reply(self) -> None:
                status, told = 200, upstream.answer(self.path)
                if upstream.handing_over and self.path != "/health":
                    upstream.handing_over -= 1
                    status, told = 503, {"error": "succeeded", "code": "not_leader"}
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler


@pytest.fixture
def upstream(machine: Machine) -> Iterator[Upstream]:
    """Serve another implementation's broker on the machine's port."""
    serving = Upstream(machine.port)
    yield serving
    serving.close()
