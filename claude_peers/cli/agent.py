"""A tiny agent for demonstrations: a session of ours as a child process, spoken to as a client."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import claude_peers
from claude_peers.core.errors import ClaudePeersError

WITHIN = 15.0
"""Seconds to wait for an answer."""


class SilentError(ClaudePeersError):
    """A session did not answer."""

    code = "no_answer"


def own_command() -> list[str]:
    """Return the command that starts another process of this very program."""
    archive = getattr(claude_peers.__loader__, "archive", None)
    if archive is not None:
        # Inside a zip file the loader names the file; what follows is a folder in it.
        return [sys.executable, str(archive)]
    return [sys.executable, "-m", "claude_peers"]


class Agent:
    """One session and its client.

    Args:
        name: the peer's name.
        environ: the environment of the process; nothing else is inherited, but where we are
            imported from.
        cwd: its working directory.

    Attributes:
        ready_ms: milliseconds from the start of the process to its answer to `initialize`.
        pushes: channel notifications as they come, with the time of arrival.
    """

    def __init__(self, name: str, environ: Mapping[str, str], cwd: str) -> None:
        self.name = name
        self.pushes: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._number = 0
        began = time.perf_counter()
        folder = os.path.dirname(os.path.dirname(os.path.abspath(claude_peers.__file__)))
        paths = (folder, os.environ.get("PYTHONPATH"))
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            own_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **environ,
                "CLAUDE_PEERS_NAME": name,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
            cwd=cwd,
        )
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._greet(name, began)
        except ClaudePeersError:
            self.kill()
            raise

    def _greet(self, name: str, began: float) -> None:
        client = {"name": f"demo-{name}", "version": claude_peers.__version__}
        self._request(
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client},
        )
        self.ready_ms = (time.perf_counter() - began) * 1000
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._request("prompts/list", {})

    def call(self, tool: str, **arguments: Any) -> str:
        """Return the text of a tool's result.

        Raises:
            SilentError: no answer came, or the tool failed.
        """
        answer = self._request("tools/call", {"name": tool, "arguments": arguments})
        result = answer.get("result", {})
        text = "\n".join(block["text"] for block in result.get("content", []))
        if result.get("isError") or "error" in answer:
            raise SilentError(f"{tool} of {self.name} failed", text or str(answer))
        return text

    def next_push(self, within: float = WITHIN) -> tuple[float, dict[str, Any]]:
        """Return when the next push came, and the notification's parameters."""
        try:
            return self.pushes.get(timeout=within)
        except queue.Empty:
            raise SilentError(f"No push reached {self.name}", "Look at the log.") from None

    def kill(self) -> None:
        """End the process the hard way, as a crash does."""
        self.process.kill()
        self.process.wait()
        self._hang_up()

    def close(self) -> None:
        """End the session as a client does: by closing its input."""
        self._hang_up()
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self.kill()

    def _hang_up(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended before it read everything
                self.process.stdin.close()

    def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        self._answers[number] = queue.SimpleQueue()
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            return self._answers[number].get(timeout=WITHIN)
        except queue.Empty:
            raise SilentError(f"{self.name} did not answer {method}", "Look at the log.") from None
        finally:
            del self._answers[number]

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None  # noqa: S101 - a pipe, as asked for
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError) as error:  # ended, or hung up by us
            raise SilentError(f"{self.name} has ended", "Look at the log.") from error

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - a pipe, as asked for
        with self.process.stdout as lines:
            for line in lines:
                message = json.loads(line)
                if "method" in message:
                    self.pushes.put((time.perf_counter(), message["params"]))
                elif answer := self._answers.get(message.get("id")):
                    answer.put(message)
