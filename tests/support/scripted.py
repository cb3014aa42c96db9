"""A model's API on loopback that plays a part: it uses tools in a given order, then has done.

The dialects are in `support.codex` and `support.gemini`: each turns a request into what the model
is shown, and the model's next move into an answer.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

DONE = "SCRIPT-DONE"
"""What the model says last."""


@dataclass(frozen=True, slots=True)
class Use:
    """A move: the model uses a tool of ours, or with `own` one of the client's."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    own: bool = False


Step = Use | Callable[[], Use | None] | None
"""A move (None: say that it is done), or what makes one; meanwhile the client waits, so a test can
do something first.
"""


class Script:
    """What the model does, and what it was shown.

    Attributes:
        results: what each tool answered, in order, as the model was shown it.
        offered: the names of the tools it was offered.
        texts: everything that each request showed.
        failed: what a step raised; it ends the play.
    """

    def __init__(self, *steps: Step) -> None:
        self.results: list[str] = []
        self.offered: set[str] = set()
        self.texts: list[str] = []
        self.failed: list[BaseException] = []
        self._steps = iter(steps)
        self._lock = threading.Lock()

    def next(self, results: list[str]) -> Use | None:
        """Return the next move, None to say that it is done."""
        with self._lock:
            self.results = results
            if self.failed:
                return None
            step = next(self._steps, None)
            try:
                return step() if callable(step) else step
            except Exception as error:  # noqa: BLE001 - `last` raises it once the client has ended
                self.failed.append(error)
                return None

    def last(self) -> str:
        """Return everything the model was shown by the last request; fail if a step failed."""
        if self.failed:
            raise self.failed[0]
        assert self.texts, "the client never asked its model"
        return self.texts[-1]


class Api(BaseHTTPRequestHandler):
    """Answers POSTs by `reply`; anything else is 404."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[Script]

    def reply(self, path: str, body: dict[str, Any]) -> tuple[str, str] | None:
        """Return content type and body of the answer, None for 404."""
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._tell(404, "application/json", "{}")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        told = self.reply(self.path, json.loads(raw))
        if told is None:
            self._tell(404, "application/json", "{}")
        else:
            self._tell(200, *told)

    def _tell(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        with contextlib.suppress(OSError):  # the client may have gone away
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@contextlib.contextmanager
def serving(dialect: type[Api], script: Script) -> Iterator[int]:
    """Serve a script on a free port until the end of the block; give the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Api", (dialect,), {"script": script}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def sse(*events: dict[str, Any]) -> tuple[str, str]:
    """Return content type and text of a stream of events."""
    return "text/event-stream", "".join(f"data: {json.dumps(each)}\n\n" for each in events)


def offline(environ: dict[str, str]) -> dict[str, str]:
    """Return an environment in which a client reaches nothing but this machine."""
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    return {**environ, **nowhere, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
