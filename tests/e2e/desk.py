"""A user's desk: Claude Code in a terminal, with claude-peers installed as a user installs it.

Server and hooks are in the user scope; both the terminal and the processes of the machine have one
home. The models here play an agent that has work to do.
"""

import json
import os
import subprocess
import threading
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from e2e.stub_api import Model, prompts, say, shown
from e2e.terminal import Terminal
from support.machine import Machine, command
from support.node_tools import claude
from support.waiting import eventually

from claude_peers.cli.reach import Broker
from claude_peers.settings import load
from claude_peers.wire.hooks import SERVER

BOUND = 60
"""Seconds for what takes a real client less than one."""
WORK = "WORK NOW"
"""What starts the turn of a `Worker`."""
WAITER = b"claude-peers wake"
"""By what the command of the hook is known."""
ALLOWED = (f"mcp__{SERVER}", "Bash(true)")


class Worker(Model):
    """Works from WORK on: it uses a tool of the client's own until it has been shown something.

    One use more follows, as whoever goes on past a hook's answer has seen it. So everything it is
    shown belongs to one turn, and it fails nobody by waiting: after `most` uses it gives up.

    Args:
        wanted: what it waits to be shown.
        most: uses of the tool.

    Attributes:
        asked: set once the turn has begun.
        sent: the model begins to answer once this is set.
        found: whether it was shown everything before the turn's end.
    """

    def __init__(self, *wanted: str, most: int = 60) -> None:
        super().__init__()
        self.asked, self.sent = threading.Event(), threading.Event()
        self.found = False
        self._wanted = wanted
        self._left = most
        self._over = False

    def turn(self, who: int, body: dict[str, Any]) -> list[dict[str, Any]]:
        if WORK not in prompts(body) or self._over:
            return super().turn(who, body)
        self.asked.set()
        self.sent.wait(BOUND)
        self._over = self.found or not self._left
        text = shown(body)
        self.found = self.found or all(each in text for each in self._wanted)
        self._left -= 1
        if self._over:
            return say("finished")
        call = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:20]}", "name": "Bash"}
        return [{**call, "input": {"command": "true"}}]


class Desk:
    """Terminal and machine of one user.

    Args:
        machine: where the user's other processes run.
        model: what the agent says.
        environ: variables of the user's shell, those of the server too.

    Attributes:
        terminal: where the agent runs.
    """

    def __init__(self, machine: Machine, model: Model | None = None, **environ: str) -> None:
        self.machine = machine
        machine.environ |= environ
        self.terminal = Terminal(model, machine.environment())
        machine.environ["HOME"] = str(self.terminal.home)

    def install(self, *, hooks: bool = True) -> None:
        """Configure the server, allow its tools, and install the hooks."""
        self.terminal.connect(SERVER, command())
        self.terminal.configure({"permissions": {"allow": list(ALLOWED)}})
        if hooks:
            words = ("hooks", "install", "--claude-version", version(), "--json")
            done = self.machine.run(*words)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["changed"], done.stdout

    def close(self) -> None:
        """End the terminal and what runs in it; the machine ends its own."""
        self.terminal.close()

    # ----------------------------------------------------------------- waiters
    def waiters(self) -> list[int]:
        """Return the processes of the hook that waits for mail."""
        found: list[int] = []
        for pid in self.terminal.left():
            with suppress(OSError):
                if WAITER in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    @property
    def wake(self) -> Path:
        """Where the waiters' pipes are."""
        return Path(load(self.machine.environment()).state_folder) / "wake"

    def make_pipe(self, client: int) -> None:
        """Make the pipe of a client, as the server of one in a terminal does."""
        self.wake.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.mkfifo(self.wake / str(client), 0o600)

    # ------------------------------------------------------------------- peers
    def peer(self, route: str = "") -> dict[str, Any]:
        """Return the agent as the roster shows it, once it is there and has this route."""

        def there() -> dict[str, Any] | None:
            try:
                peers = self.machine.peers()
            except OSError:  # no broker yet
                return None
            here = (each for each in peers if each["cwd"] == str(self.terminal.work))
            return next((each for each in here if route in ("", each["route"])), None)

        return eventually(there, timeout=BOUND, what=f"an agent on the roster, route {route!r}")

    def send(self, name: str, text: str) -> int:
        """Send from another terminal and return the message's id."""
        done = self.machine.run("send", "--json", name, text)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["message_id"])

    def story(self, message_id: int) -> dict[str, Any]:
        """Return what the broker tells this user of a message."""
        with Broker(self.machine.environment()) as broker:
            body = {"message_id": message_id}
            told: dict[str, Any] = broker.ask("/message-status", body, authenticate=True)
            return told

    def seen(self, message_id: int) -> list[tuple[str, str]]:
        """Wait until a message counts as seen, and return its steps and how each came about."""
        eventually(
            lambda: self.story(message_id)["state"] == "seen",
            timeout=BOUND,
            what=f"message {message_id} to be seen",
        )
        return [(step["event"], step["via"]) for step in self.story(message_id)["steps"]]


@cache
def version() -> str:
    """Return the version of Claude Code, as it tells it."""
    return subprocess.run(
        [claude(), "--version"], capture_output=True, text=True, timeout=BOUND, check=True
    ).stdout.strip()
