"""A scratch machine: its own home, port and state, and the processes a test starts on it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from support import http
from support.broker_pid import broker_pid, wait_for_broker
from support.mcp import Session
from support.waiting import eventually

MARK = "CLAUDE_PEERS_TEST_RUN"
"""The environment variable by which a machine knows its processes and their children."""
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "VIRTUAL_ENV")
KEPT_PREFIXES = ("COVERAGE_", "PYTHON")


def command() -> list[str]:
    """Return how the product is started: this checkout, or what CI wants to see driven."""
    given = os.environ.get("CLAUDE_PEERS_TEST_COMMAND")
    return list(json.loads(given)) if given else [sys.executable, "-m", "claude_peers"]


def free_port() -> int:
    """Return a port that nobody listens on now, below the range of outgoing connections.

    The system's own choice (port 0) lies in that range: a connection of a neighbouring test may
    take the number before the broker binds it.
    """
    while True:
        port = 20_000 + uuid.uuid4().int % 12_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Machine:
    """Processes with a home of their own, all ended by pid when the test is over.

    Attributes:
        home: HOME of everything started here.
        port: where their broker listens.
        environ: what each gets; a test may change it before it starts something.
        prefix: what goes before the product's own command.
    """

    prefix: tuple[str, ...] = ()

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.work = root / "work"
        for folder in (self.home, self.work):
            folder.mkdir(parents=True)
        self.port = free_port()
        self.database = self.home / ".claude-peers.db"
        self.mark = uuid.uuid4().hex
        self.sessions: list[Session] = []
        self.processes: list[subprocess.Popen[Any]] = []
        self.environ = self._base_environment()

    def environment(self, **extra: str | None) -> dict[str, str]:
        """Return the environment of a process; None takes a variable away."""
        merged = {**self.environ, **extra}
        return {name: value for name, value in merged.items() if value is not None}

    def folder(self, name: str) -> Path:
        """Return a directory for a process to work in."""
        made = self.work / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    # ------------------------------------------------------------- processes
    def session(
        self,
        *arguments: str,
        cwd: Path | None = None,
        handshake: bool = True,
        **environ: str | None,
    ) -> Session:
        """Start an MCP server and, unless told otherwise, shake hands with it."""
        number = len(self.sessions)
        session = Session(
            [*self.prefix, *command(), *arguments],
            environ=self.environment(**environ),
            cwd=cwd or self.folder(f"s{number}"),
            log=self.root / f"session{number}.stderr",
        )
        self.sessions.append(session)
        if handshake:
            session.initialize()
        return session

    def serve(self, *arguments: str, **environ: str | None) -> subprocess.Popen[bytes]:
        """Start a node without MCP and return it once a broker answers."""
        node = self.start("serve", *arguments, **environ)
        wait_for_broker(self.port)
        return node

    def start(
        self, *arguments: str, cwd: Path | None = None, **environ: str | None
    ) -> subprocess.Popen[bytes]:
        """Start the product with these arguments, its output in a file."""
        path = self.root / f"process{len(self.processes)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*self.prefix, *command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(**environ),
                cwd=cwd or self.work,
            )
        self.processes.append(process)
        return process

    def bystander(self) -> subprocess.Popen[bytes]:
        """Start a process that only lives, for tests that need a pid."""
        process = subprocess.Popen(["sleep", "600"], env=self.environment())
        self.processes.append(process)
        return process

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        cwd: Path | None = None,
        timeout: float = 60,
        **environ: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the product to its end."""
        return subprocess.run(
            [*self.prefix, *command(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=self.environment(**environ),
            cwd=cwd or self.work,
            timeout=timeout,
            check=False,
        )

    def cli(self, *arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
        """Run `claude-peers cli ...`."""
        return self.run("cli", *arguments, **given)

    # ---------------------------------------------------------------- broker
    @property
    def broker(self) -> int | None:
        """The pid of the process that holds the broker's port."""
        return broker_pid(self.port)

    def wait_for_broker(self, *, other_than: int | None = None, timeout: float = 15) -> int:
        """Return the broker's pid once it answers."""
        return wait_for_broker(self.port, other_than=other_than, timeout=timeout)

    def leader(self) -> Session:
        """Return the session whose process is the broker."""
        pid = self.wait_for_broker()
        return next(each for each in self.sessions if each.pid == pid)

    def post(self, path: str, body: Any = None) -> Any:
        """POST to the broker and return its JSON."""
        return http.post(self.port, path, body).json()

    def peers(self) -> list[dict[str, Any]]:
        """Return the broker's roster."""
        return list(self.post("/list-peers", {"scope": "machine"}))

    def peer_id(self, session: Session, timeout: float = 15) -> str:
        """Return the id under which `session` is registered, once it is."""

        def registered() -> str | None:
            try:
                peers = self.peers()
            except OSError:
                return None
            return next((str(each["id"]) for each in peers if each["pid"] == session.pid), None)

        return eventually(registered, timeout=timeout, what=f"peer of process {session.pid}")

    def logs(self, most: int = 4000) -> list[tuple[str, str]]:
        """Return the end of each log file that is not empty, `most` characters, by its name."""
        files = sorted({*self.root.glob("*.log"), *self.root.glob("*.stderr")})
        files += sorted(self.home.rglob("claude-peers.log*"))
        texts = {each: each.read_text(encoding="utf-8", errors="replace") for each in files}
        return [(str(each.name), text[-most:]) for each, text in texts.items() if text]

    # ------------------------------------------------------------------- end
    def close(self, timeout: float = 10) -> None:
        """End everything; fail if a message is missing, or something outlived its client.

        Each session is ended as its client would: end of input.
        """
        for each in (*self.sessions, *self.processes):
            _wake(each.process if isinstance(each, Session) else each)
        complaints = self._count()
        complaints += [*self._end_sessions(timeout), *self._end_processes(timeout)]
        try:
            eventually(lambda: not self.left(), timeout=timeout)
        except AssertionError:
            complaints += [f"process {pid} was left behind" for pid in self.left()]
            _end(self.left())
            eventually(lambda: not self.left(), timeout=timeout)  # a killed process takes a moment
        assert not complaints, "; ".join(complaints)

    def left(self) -> list[int]:
        """Return the pids of living processes started here or by something started here."""
        if not Path("/proc/self/environ").exists():
            return []
        mark = f"{MARK}={self.mark}".encode()
        folders = (each for each in Path("/proc").iterdir() if each.name.isdigit())
        return [int(each.name) for each in folders if mark in _environ(each).split(b"\0")]

    def _base_environment(self) -> dict[str, str | None]:
        kept: Mapping[str, str] = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or name.startswith(KEPT_PREFIXES)
        }
        return {
            **kept,
            "HOME": str(self.home),
            "USERPROFILE": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "CLAUDE_PEERS_PORT": str(self.port),
            "CLAUDE_PEERS_DB": str(self.database),
            "CLAUDE_PEERS_SUMMARY": "off",
            MARK: self.mark,
        }

    def _count(self) -> list[str]:
        """Ask the broker, if one answers, whether every accepted message is accounted for."""
        try:
            ledger = http.post(self.port, "/ledger", timeout=3).json()
        except (OSError, ValueError, HTTPException):
            return []  # there is none, or it is not ours
        lost = isinstance(ledger, dict) and ledger.get("balanced") is False
        return [f"the ledger does not balance: {ledger}"] if lost else []

    def _end_sessions(self, timeout: float) -> list[str]:
        complaints = []
        for each in self.sessions:
            _wake(each.process)
            each.resume_reading()
            each.end_input()
        for each in self.sessions:
            try:
                each.close(timeout)
            except subprocess.TimeoutExpired:
                complaints.append(f"session {each.pid} did not end at the end of its input")
                each.kill()
                each.close(timeout)
            if each.faults:
                complaints.append(f"session {each.pid} wrote {each.faults[:3]} to stdout")
        return complaints

    def _end_processes(self, timeout: float) -> list[str]:
        complaints = []
        for each in self.processes:
            _wake(each)
            each.terminate()
        for each in self.processes:
            try:
                each.wait(timeout)
            except subprocess.TimeoutExpired:
                complaints.append(f"process {each.pid} did not end at SIGTERM")
                each.kill()
                each.wait(timeout)
        return complaints


def git(*arguments: str, cwd: Path) -> str:
    """Run git as nobody in particular."""
    program = shutil.which("git")
    assert program is not None
    settings = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
    result = subprocess.run(
        [program, *settings, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    return result.stdout


def _wake(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None and hasattr(signal, "SIGCONT"):
        process.send_signal(signal.SIGCONT)


def _environ(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except OSError:
        return b""  # it ended meanwhile, or is another user's


def _end(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
