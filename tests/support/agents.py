"""Programs that start MCP servers as agents do: each is the real parent of its servers.

Such a program starts a server when it is told to, on the two pipes it is handed for it, and
otherwise only lives: the test speaks MCP through the pipes' other ends.
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO, Any

from claude_peers.core.models import Process
from claude_peers.host import processes
from support.machine import Machine, command
from support.mcp import Session
from support.waiting import eventually

PROGRAM = """
import array, json, os, socket, subprocess, sys
from signal import SIGCHLD, SIG_IGN, signal
orders = socket.socket(fileno=int(sys.argv[1]))
signal(SIGCHLD, SIG_IGN)  # nobody asks how a server ended
while True:
    line, fds, _, _ = socket.recv_fds(orders, 65536, 3)
    if not line:
        break
    order = json.loads(line)
    stdin, stdout, stderr = fds
    server = subprocess.Popen(
        order["command"], stdin=stdin, stdout=stdout, stderr=stderr,
        env={**os.environ, **order["environ"]}, cwd=order["cwd"],
    )
    for fd in fds:
        os.close(fd)
    orders.sendall(json.dumps(server.pid).encode())
    server.returncode = 0  # it is reaped by the system
"""


class Child:
    """A process that another one started, as far as a session's client needs it."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        found = processes.identify(pid)
        assert found is not None
        self.pid = pid
        self.stdin = os.fdopen(stdin, "wb")
        self.stdout = os.fdopen(stdout, "rb")
        self._process: Process = found

    def poll(self) -> int | None:
        return None if processes.alive(self._process) else 0

    def wait(self, timeout: float = 10) -> int:
        try:
            eventually(lambda: self.poll() is not None, timeout=timeout)
        except AssertionError:
            raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
        return 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Hosted(Session):
    """A server that an agent started, and the agent's end of its pipes."""

    def __init__(
        self, agent: "Agent", words: list[str], *, log: Path, cwd: Path, environ: dict[str, str]
    ) -> None:
        self._agent = agent
        super().__init__(words, environ=environ, cwd=cwd, log=log)

    def _start(self, environ: dict[str, str], cwd: Path, errors: IO[bytes]) -> Child:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        handed = [theirs_in, theirs_out, errors.fileno()]
        pid = self._agent.order(self.command, handed, environ, cwd)
        os.close(theirs_in)
        os.close(theirs_out)
        return Child(pid, ours_in, ours_out)


class Agent:
    """A program that starts servers.

    Attributes:
        pid: its process.
        client: the name it gives itself in `initialize`.
        environ: what its servers get besides the machine's environment.
    """

    def __init__(self, machine: Machine, client: str, *arguments: str, **environ: str) -> None:
        self.client = client
        self.environ = environ
        self.servers: list[Hosted] = []
        self._machine = machine
        self._orders, theirs = socket.socketpair()
        weakref.finalize(self, self._orders.close)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(theirs.fileno()), *arguments],
            pass_fds=[theirs.fileno()],
            env=machine.environment(),
        )
        theirs.close()
        machine.processes.append(self.process)

    @property
    def pid(self) -> int:
        return self.process.pid

    def serve(
        self, *, client: str = "", shell: bool = False, stay: bool = True, **environ: str
    ) -> Hosted:
        """Start a server and shake hands; unless told otherwise it is used, and so registered.

        A program that this one starts calls itself otherwise, and inherits its environment. A
        shell between the two does not end with its server.
        """
        machine = self._machine
        words = command()
        server = Hosted(
            self,
            ["/bin/sh", "-c", f"{shlex.join(words)}; exit $?"] if shell else words,
            log=machine.root / f"{self.pid}-{len(self.servers)}.stderr",
            cwd=machine.folder("project"),
            environ={**self.environ, **environ},
        )
        self.servers.append(server)
        machine.sessions.append(server)
        server.initialize(client=client or self.client)
        if stay:
            server.call("whoami")
        return server

    def order(self, words: list[str], fds: list[int], environ: dict[str, str], cwd: Path) -> int:
        """Let the program start a command on three descriptors; return its pid."""
        told = {"command": words, "environ": environ, "cwd": str(cwd)}
        socket.send_fds(self._orders, [json.dumps(told).encode()], fds)
        return int(json.loads(self._orders.recv(64)))

    def kill(self) -> None:
        """End the program and its servers without a warning to any of them."""
        self.process.kill()
        self.process.wait()
        for server in self.servers:
            server.kill(signal.SIGKILL)

    def end(self) -> None:
        """End as a program does that is told to: its servers get the end of their input."""
        for server in self.servers:
            server.close()
        self.process.terminate()
        self.process.wait()


class Claude(Agent):
    """Claude Code: it also leaves a record of its session, and tells its servers of it."""

    def __init__(self, machine: Machine, session_id: str, *arguments: str) -> None:
        super().__init__(machine, "claude-code", *arguments, CLAUDE_CODE_ENTRYPOINT="cli")
        self.record(session_id)

    def record(self, session_id: str, **fields: Any) -> None:
        """Write its record, which `/clear`, `/resume` and `/branch` change."""
        folder = self._machine.home / ".claude" / "sessions"
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            "pid": self.pid,
            "procStart": processes.start_time(self.pid),
            "sessionId": session_id,
            "status": "busy",
            "entrypoint": "cli",
            **fields,
        }
        (folder / f"{self.pid}.json").write_text(json.dumps(told))
        self.environ |= {  # what a server gets that is started from now on
            "CLAUDE_CODE_SESSION_ID": session_id,
            "CLAUDE_CODE_MESSAGING_SOCKET": str(folder / f"{self.pid}.sock"),
        }


def identity(server: Session) -> tuple[str, str]:
    """Return id and name of a session, as it tells itself."""
    first, second, *_ = server.call("whoami")[0].splitlines()
    return first.removeprefix("ID: "), second.strip().removeprefix("Name: ")


def shown(server: Session, text: str) -> int:
    """Return how often a text is in the results that a session's agent has been given."""
    results = [each["result"] for each in server.received if "result" in each]
    return json.dumps(results).count(text)
