"""A receiver of webhooks on this machine, which answers as a test says and keeps what came."""

import http.server
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self


@dataclass
class Got:
    """One post."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def uid(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Serves on a free port; `answer` returns status and headers for each post."""

    def __init__(self, answer: Callable[[Got], Any] = lambda _got: 200) -> None:
        self.got: list[Got] = []
        self.answer = answer
        self.news = threading.Condition()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                got = Got(self.path, headers, body)
                told = outer.answer(got)
                with outer.news:  # before the answer, after which the next one may come
                    outer.got.append(got)
                status, more = told if isinstance(told, tuple) else (told, {})
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()
                with outer.news:
                    outer.news.notify_all()

            def log_message(self, *_: object) -> None:
                """Keep stderr clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/in"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def wait(self, count: int, within: float = 20.0) -> list[Got]:
        """Return the posts once there are so many.

        Raises:
            AssertionError: there are not.
        """
        with self.news:
            assert self.news.wait_for(lambda: len(self.got) >= count, within), self.got
            return list(self.got)
