"""An MCP client of plain JSON-RPC lines, which sees what a library would hide."""

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

PUSH = "notifications/claude/channel"


class RpcError(Exception):
    """The server answered a request with an error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code = error.get("code")
        self.message = str(error.get("message"))


class Session:
    """One server process and the client's end of its pipes.

    Attributes:
        received: every JSON document the server wrote, in order.
        notifications: those of `received` that are notifications.
        faults: lines of stdout that were not one JSON document.
    """

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], cwd: Path, log: Path
    ) -> None:
        self.command = list(command)
        self.log = log
        with log.open("wb") as errors:
            self.process = self._start(dict(environ), cwd, errors)
        self.received: list[Any] = []
        self.notifications: list[dict[str, Any]] = []
        self.faults: list[bytes] = []
        self.ended = False
        self._answers: dict[int | str | None, dict[str, Any]] = {}
        self._last = 1000  # a test may choose smaller ids itself
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._reading = threading.Event()
        self._reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # ------------------------------------------------------------------ life
    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Send a signal; a deadly one is also waited for."""
        self.process.send_signal(sig)
        if sig == signal.SIGKILL:
            self.process.wait(10)

    def end_input(self) -> None:
        """Close stdin, as a client does that leaves."""
        # It may have ended before it read everything.
        with self._writing, contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def close(self, timeout: float = 10) -> int:
        """Close stdin, wait for the end and return the exit code."""
        self.resume_reading()
        self.end_input()
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        self._stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --------------------------------------------------------------- writing
    def send(self, document: Any) -> None:
        """Write one JSON document as a line."""
        self.send_line(json.dumps(document).encode())

    def send_line(self, line: bytes) -> None:
        """Write a line as it is."""
        with self._writing:
            self._stdin.write(line + b"\n")
            self._stdin.flush()

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})

    def ask(
        self, method: str, params: dict[str, Any] | None = None, *, number: int | str | None = None
    ) -> int | str:
        """Send a request and return its id without waiting."""
        if number is None:
            with self._changed:
                self._last += 1
                number = self._last
        document = {"jsonrpc": "2.0", "id": number, "method": method}
        self.send(document if params is None else {**document, "params": params})
        return number

    # --------------------------------------------------------------- reading
    def answer(self, number: int | str | None, timeout: float = 30) -> dict[str, Any]:
        """Return the response to request `number` as it came."""
        return self._wait(lambda: self._answers.get(number), timeout, f"answer to {number}")

    def request(
        self, method: str, params: dict[str, Any] | None = None, timeout: float = 30
    ) -> Any:
        """Send a request and return its result.

        Raises:
            RpcError: the answer is an error.
        """
        response = self.answer(self.ask(method, params), timeout)
        if "error" in response:
            raise RpcError(response["error"])
        return response["result"]

    def wait_for(
        self, predicate: Callable[[dict[str, Any]], bool], timeout: float = 10
    ) -> dict[str, Any]:
        """Return the first notification for which `predicate` holds."""
        return self._wait(
            lambda: next((each for each in self.notifications if predicate(each)), None),
            timeout,
            "notification",
        )

    def wait_for_push(self, text: str, timeout: float = 10) -> dict[str, Any]:
        """Return the params of the first push whose content contains `text`."""
        found = self.wait_for(
            lambda each: each["method"] == PUSH and text in each["params"]["content"], timeout
        )
        return found["params"]

    @property
    def pushes(self) -> list[dict[str, Any]]:
        """The params of every channel notification so far."""
        return [each["params"] for each in self.notifications if each["method"] == PUSH]

    def stop_reading(self) -> None:
        """Leave what the server writes in the pipe, after the line that is being read."""
        self._reading.clear()

    def resume_reading(self) -> None:
        """Read again."""
        self._reading.set()

    # ------------------------------------------------------------------- MCP
    def initialize(
        self,
        protocol: str = "2025-06-18",
        *,
        client: str = "test-client",
        capabilities: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send `initialize` and `notifications/initialized`; return the result."""
        result = self.request(
            "initialize",
            {
                "protocolVersion": protocol,
                "capabilities": capabilities or {},
                "clientInfo": {"name": client, "version": "1"},
            },
        )
        self.notify("notifications/initialized")
        return result

    def list_tools(self) -> list[dict[str, Any]]:
        """Return the tools offered."""
        return self.request("tools/list", {})["tools"]

    def list_prompts(self) -> list[dict[str, Any]]:
        """Return the prompts offered; this is what a real client asks when it means to stay."""
        return self.request("prompts/list", {})["prompts"]

    def call(self, tool: str, /, *, timeout: float = 30, **arguments: Any) -> tuple[str, bool]:
        """Call a tool; return its text and whether it is an error."""
        return self.outcome(self.ask_tool(tool, **arguments), timeout)

    def ask_tool(self, tool: str, /, **arguments: Any) -> int | str:
        """Start a tool call and return its id."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def outcome(self, number: int | str, timeout: float = 30) -> tuple[str, bool]:
        """Return text and error mark of the tool call `number`."""
        response = self.answer(number, timeout)
        if "error" in response:
            raise RpcError(response["error"])
        blocks = response["result"]["content"]
        text = "\n".join(block["text"] for block in blocks if block["type"] == "text")
        return text, bool(response["result"].get("isError"))

    # ---------------------------------------------------------------- inside
    def _start(self, environ: dict[str, str], cwd: Path, errors: IO[bytes]) -> Any:
        return subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ,
            cwd=cwd,
        )

    @property
    def _stdin(self) -> Any:
        return self.process.stdin

    @property
    def _stdout(self) -> Any:
        return self.process.stdout

    def _wait(self, probe: Callable[[], Any], timeout: float, what: str) -> Any:
        end = time.monotonic() + timeout
        with self._changed:
            while (found := probe()) is None:
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    state = "it ended" if self.ended else f"{timeout:g} s passed"
                    raise AssertionError(
                        f"no {what} from process {self.pid}: {state}; "
                        f"faults {self.faults[:3]}, stderr {self.stderr[-2000:]!r}"
                    )
                self._changed.wait(left)
        return found

    def _read(self) -> None:
        for line in self._stdout:
            try:
                document = json.loads(line)
            except ValueError:
                self.faults.append(line)
                continue
            with self._changed:
                self.received.append(document)
                for each in document if isinstance(document, list) else [document]:
                    self._take(each)
                self._changed.notify_all()
            self._reading.wait()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _take(self, document: dict[str, Any]) -> None:
        if "method" not in document:
            self._answers[document.get("id")] = document
        elif "id" not in document:
            self.notifications.append(document)
        else:
            reply: dict[str, Any] = {"error": {"code": -32601, "message": "Method not found"}}
            if document["method"] == "ping":
                reply = {"result": {}}
            self.send({"jsonrpc": "2.0", "id": document["id"], **reply})
