"""Real Claude Code in a terminal of its own, offline: tmux is the terminal, `stub_api` the model.

Everything lies in a scratch directory: HOME, the project, tmux's socket. The environment carries a
mark by which whatever the client starts is found again.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from e2e.stub_api import KEY, Model, serve, shown
from support.node_tools import claude
from support.waiting import eventually

MARK = "TERMINAL_RUN_ID"
READY = ("? for shortcuts", "shift+tab to cycle")
"""What the client's screen shows below its prompt, one or the other, once it takes input."""
TERMINAL = ("-x", "120", "-y", "40")


class Terminal:
    """One user's scratch home, the model, and at most one client in a terminal.

    Args:
        model: what it is to say; without one it answers everything with "?".
        environ: variables that clients get besides those they need.

    Attributes:
        root: the scratch directory.
        model: the model, which notes what it is asked.
        pid: the client in the terminal, once it has been started.
    """

    def __init__(
        self, model: Model | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._tmux = shutil.which("tmux") or pytest.skip("no tmux: install it (apt, brew)")
        self._claude = claude()
        self._id = uuid.uuid4().hex
        self.pid = 0
        # A socket's path is short, and pytest's folders are not.
        self.root = Path(tempfile.mkdtemp(prefix="terminal-"))
        self.home, self.work = self.root / "home", self.root / "work"
        for folder in (self.home / ".claude", self.work, self.root / "tmp"):
            folder.mkdir(parents=True)
        self.model = model or Model()
        self._given = dict(environ or {})
        self._stub = serve(self.model)
        self._welcome()

    def _welcome(self) -> None:
        """Answer beforehand what the client asks a user at the first start."""
        project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        answers = {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": [self.environ["ANTHROPIC_API_KEY"][-20:]]},
            "projects": {str(self.work): project},
        }
        (self.home / ".claude.json").write_text(json.dumps(answers))

    @property
    def environ(self) -> dict[str, str]:
        """What a client is started with: nothing of the developer's."""
        return {
            **self._given,
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self._stub.server_port}",
            "ANTHROPIC_API_KEY": f"{KEY}0",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_TMPDIR": str(self.root / "tmp"),
            MARK: self._id,
        }

    def configure(self, settings: dict[str, Any]) -> None:
        """Write the user's settings."""
        (self.home / ".claude" / "settings.json").write_text(json.dumps(settings))

    def connect(self, name: str, command: Sequence[str]) -> None:
        """Name an MCP server to all clients of the user, as `claude mcp add --scope user` does."""
        file = self.home / ".claude.json"
        server = {"type": "stdio", "command": command[0], "args": [*command[1:]], "env": {}}
        told = json.loads(file.read_text())
        told["mcpServers"] = {**told.get("mcpServers", {}), name: server}
        file.write_text(json.dumps(told))

    # ------------------------------------------------------------------ client
    def start(self, *arguments: str) -> int:
        """Start the client in the terminal and return its pid; it may not take input yet."""
        where = ("-d", *TERMINAL, "-c", str(self.work), "-P", "-F", "#{pane_pid}")
        self.pid = int(self._command("new-session", *where, self._claude, *arguments))
        return self.pid

    def headless(self, prompt: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start `claude -p` beside the terminal."""
        return subprocess.Popen(
            [self._claude, "-p", prompt, *arguments],
            cwd=self.work,
            env=self.environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ready(self) -> None:
        """Wait until the client takes input."""
        try:
            eventually(
                lambda: any(hint in self.screen() for hint in READY),
                timeout=60,
                what="the client's prompt",
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; the terminal shows:\n{self.screen()}") from None

    def screen(self) -> str:
        """Return what a user sees."""
        return self._command("capture-pane", "-p")

    def type(self, text: str) -> None:
        """Type a line."""
        self._command("send-keys", "-l", text)
        self._command("send-keys", "Enter")

    def say(self, text: str) -> None:
        """Type a line and wait until the model is shown it."""
        before = self.shown(text)
        self.type(text)
        eventually(lambda: self.shown(text) > before, timeout=60, what=f"a turn with {text!r}")

    def shown(self, text: str) -> int:
        """Return how often the model was shown `text`, in the request that has it most often."""
        return max((shown(body).count(text) for body in self.model.bodies(0)), default=0)

    def kill(self) -> None:
        """End the client as a crash does."""
        os.kill(self.pid, signal.SIGKILL)

    # --------------------------------------------------------------------- end
    def left(self) -> list[int]:
        """Return the processes that the client started and itself, as far as they still run."""
        mark = f"{MARK}={self._id}".encode()
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        """End everything that runs here, and leave nothing."""
        with suppress(subprocess.CalledProcessError):
            self._command("kill-server")
        with suppress(AssertionError):
            eventually(lambda: not self.left(), timeout=1)
        for pid in self.left():  # they carry this terminal's mark, so it started them
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._stub.shutdown()
        self._stub.server_close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _command(self, *words: str) -> str:
        given = (self._tmux, "-f", os.devnull, "-S", str(self.root / "tmux"), *words)
        done = subprocess.run(
            given, env=self.environ, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout
