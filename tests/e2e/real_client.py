"""Drive n real Claude Code clients, offline and at the same time, against one MCP server.

    real_client.py [options] -- SERVER_COMMAND [ARG ...]
    real_client.py --selftest          a toy server that works, and broken ones that must fail

Needs the standard library and a `claude` executable (npm package @anthropic-ai/claude-code; the
native binary runs without Node). Nothing leaves the machine: the clients talk to `stub_api`, the
key is a dummy, HOME is a scratch directory.

Asserted, from what arrived at the stub, that is from what the model would have seen: the server
connected in a protocol that carries channels, the tools were offered, no tool result is an error,
every client found the next one by its summary and got exactly its message, once, and nothing is
left running. Reported, and asserted only with --expect-push: an idle client is woken by a push.

Exit status: 0 all assertions hold, 1 some failed, 2 usage, 77 no client found.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stub_api import KEY, TOOLS, Script, conversation, serve, shown

MARK = "HARNESS_RUN_ID"
PUSH = "HARNESS-PUSH"
FAULTS = ("ok", "lossy", "misroute", "twice", "error", "modern", "orphan")
"""What the toy server can show."""


class Client:
    """One `claude -p` that is fed turns over its stdin."""

    def __init__(self, number: int, argv: list[str], root: Path, environ: dict[str, str]) -> None:
        self.number = number
        self.events: list[dict[str, Any]] = []
        self.debug = root / f"client{number}.debug"
        self.errors = root / f"client{number}.stderr"
        folder = root / f"project{number}"
        folder.mkdir()
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*argv, "--debug-file", str(self.debug)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=environ,
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._pipe("stdout"):
            with suppress(ValueError):
                self.events.append(json.loads(line))

    def _pipe(self, name: str) -> Any:
        return getattr(self.process, name)

    def prompt(self, text: str) -> None:
        """Start a turn."""
        document = {"type": "user", "message": {"role": "user", "content": text}}
        self._pipe("stdin").write(json.dumps(document) + "\n")
        self._pipe("stdin").flush()

    @property
    def turns(self) -> int:
        """How many turns are over."""
        return sum(event.get("type") == "result" for event in self.events)

    @property
    def debug_text(self) -> str:
        return self.debug.read_text(errors="replace") if self.debug.exists() else ""

    def wait_for_turns(self, count: int, timeout: float) -> bool:
        """Wait until `count` turns are over; return whether they are."""
        until(lambda: self.turns >= count or self.process.poll() is not None, timeout)
        return self.turns >= count

    def close(self) -> None:
        """End the client as a user does."""
        try:
            self._pipe("stdin").close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


class Run:
    """One run: its stub, its clients, its verdicts."""

    def __init__(self, options: argparse.Namespace, command: list[str]) -> None:
        self.options = options
        self.id = uuid.uuid4().hex
        self.root = Path(tempfile.mkdtemp(prefix="real-client-"))
        self.script = Script(
            options.n, options.name, timeout=options.timeout, settle=options.settle
        )
        self.stub = serve(self.script)
        self.clients: list[Client] = []
        self.checks: list[tuple[bool, str]] = []
        self.report: dict[str, Any] = {"checks": self.checks, "clients": []}
        self._configure(command)

    def __call__(self) -> dict[str, Any]:
        """Do everything and return the report."""
        try:
            self._start()
            for client in self.clients:
                finished = client.wait_for_turns(1, self.options.timeout)
                self.check(finished, f"client {client.number}: turn finished")
            for client in self.clients:
                self._judge(client)
            if 0 in self.script.peer_ids:
                self._push()
            self._judge_ends()
        finally:
            self._end()
        self.report["ok"] = all(holds for holds, _ in self.checks)
        return self.report

    def check(self, holds: object, what: str) -> None:
        """Note a verdict."""
        self.checks.append((bool(holds), what))

    # ----------------------------------------------------------------- start
    def _configure(self, command: list[str]) -> None:
        environ = {
            MARK: self.id,
            "CLAUDE_PEERS_DB": str(self.root / "peers.db"),
            "CLAUDE_PEERS_PORT": str(free_port()),
            **dict(each.split("=", 1) for each in self.options.env),
        }
        server = {"command": command[0], "args": command[1:], "env": environ}
        configuration = {"mcpServers": {self.options.name: server}}
        (self.root / "mcp.json").write_text(json.dumps(configuration))
        for name in ("home", "tmp"):
            (self.root / name).mkdir()

    def _start(self) -> None:
        environ = {
            "HOME": str(self.root / "home"),
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self.stub.server_port}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_TMPDIR": str(self.root / "tmp"),
            MARK: self.id,
        }
        claude = self.options.claude
        self.report["client"] = subprocess.run(
            [claude, "--version"], env=environ, text=True, capture_output=True, check=False
        ).stdout.strip()
        allowed = ",".join(f"mcp__{self.options.name}__{tool}" for tool in TOOLS)
        stream = ("--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
        server = ("--mcp-config", str(self.root / "mcp.json"), "--strict-mcp-config")
        argv = [claude, "-p", *stream, *server, "--allowedTools", allowed]
        for number in range(self.options.n):
            own = {**environ, "ANTHROPIC_API_KEY": f"{KEY}{number}"}
            self.clients.append(Client(number, argv, self.root, own))
        for client in self.clients:
            client.prompt("HARNESS-GO")

    # ----------------------------------------------------------------- judge
    def _judge(self, client: Client) -> None:
        bodies = self.script.bodies(client.number)
        calls, results = conversation(bodies[-1], self.options.name) if bodies else ([], [])
        self._judge_connection(client)
        self._judge_calls(client, calls, results)
        text = shown(bodies[-1]) if bodies else ""
        delivery = self._judge_message(client, text, results)
        found = re.search(r"Successfully connected .* in (\d+)ms", client.debug_text)
        self.report["clients"].append(
            {
                "connect_ms": int(found[1]) if found else None,
                "era": era(client.debug_text),
                "delivery": delivery,
                "results": {name: text[:400] for name, text, _ in results},
            }
        )

    def _judge_connection(self, client: Client) -> None:
        name, who = self.options.name, f"client {client.number}"
        init: dict[str, Any] = next(
            (each for each in client.events if each.get("subtype") == "init"), {}
        )
        servers = init.get("mcp_servers", [])
        connected = [each.get("status") for each in servers] == ["connected"]
        self.check(connected, f"{who}: server connected ({servers})")
        prefix = f"mcp__{name}__"
        offered = {tool.removeprefix(prefix) for tool in init.get("tools", [])}
        self.check(offered >= set(TOOLS), f"{who}: tools offered")
        spoken = era(client.debug_text)
        legacy = spoken[0] != "modern" or self.options.allow_modern
        self.check(legacy, f"{who}: protocol {spoken}; a modern one cannot carry channels")

    def _judge_calls(self, client: Client, calls: list[Any], results: list[Any]) -> None:
        who = f"client {client.number}"
        names = [name for name, _ in calls]
        self.check(tuple(names[: len(TOOLS)]) == TOOLS, f"{who}: calls made {names}")
        for name, text, bad in results:
            self.check(not bad, f"{who}: {name} is no error" + (f": {text[:200]!r}" if bad else ""))
        found = client.number in self.script.peer_ids
        self.check(found, f"{who}: found its neighbour in list_peers by its summary")

    def _judge_message(self, client: Client, text: str, results: list[Any]) -> str:
        sender = (client.number - 1) % self.options.n
        wanted = self.script.message_of(sender)
        polled = any(name == "check_messages" and wanted in text for name, text, _ in results)
        delivery = "poll" if polled else "push" if wanted in text else "none"
        who = f"client {client.number}"
        self.check(wanted in text, f"{who}: got the message of client {sender} ({delivery})")
        self.check(text.count(wanted) <= 1, f"{who}: got it once ({text.count(wanted)})")
        return delivery

    def _push(self) -> None:
        """Let client 0 write to client 1, which is idle."""
        target = self.clients[1 % self.options.n]
        before, started = target.turns, time.time()
        self.clients[0].prompt("HARNESS-SEND-PUSH")
        self.clients[0].wait_for_turns(2, self.options.timeout)
        woken = target.wait_for_turns(before + 1, self.options.push_wait)
        hits = [
            (when, shown(body))
            for when, who, body in self.script.requests
            if who == target.number and when >= started and PUSH in shown(body)
        ]
        self.report["push"] = {
            "idle_client_woken": bool(woken and hits),
            "seconds": round(hits[0][0] - started, 3) if hits else None,
            "framing": framing(hits[0][1]) if hits else None,
        }
        if self.options.expect_push:
            self.check(woken and hits, f"idle client woken by a push ({self.report['push']})")

    def _judge_ends(self) -> None:
        for note in self.script.notes:
            self.check(holds=False, what=note)
        for client in self.clients:
            code = client.process.poll()
            if code:
                errors = client.errors.read_text()[:300]
                self.check(holds=False, what=f"client {client.number}: exit {code}: {errors}")

    # ------------------------------------------------------------------- end
    def _end(self) -> None:
        for client in self.clients:
            client.close()
        linger = self.options.linger
        until(lambda: not self._left(), linger)
        left = self._left()
        self.report["processes_left"] = len(left)
        if not self.options.allow_daemon:
            self.check(not left, f"no process left {linger:g} s after the clients ({len(left)})")
        for pid in left:  # they carry this run's mark, so this run started them
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.stub.shutdown()
        self.stub.server_close()
        if self.options.keep:
            self.report["scratch"] = str(self.root)
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def _left(self) -> list[int]:
        """Return processes still alive that this run started, as far as the system tells."""
        mark = f"{MARK}={self.id}".encode()
        folders = [each for each in Path("/proc").glob("[0-9]*") if each.name != str(os.getpid())]
        return [int(each.name) for each in folders if mark in environ_of(each)]


def environ_of(folder: Path) -> list[bytes]:
    """Return a process's environment, nothing if it has ended."""
    try:
        return (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def until(probe: Callable[[], object], timeout: float) -> None:
    """Wait until `probe` is true, or the time is over."""
    end = time.monotonic() + timeout
    while not probe() and time.monotonic() < end:
        time.sleep(0.02)


def era(debug_text: str) -> tuple[str, ...]:
    """Return protocol era and version as the client's debug log has them."""
    pattern = r'"protocolEra":"(\w+)","negotiatedProtocolVersion":"([\d-]+)"'
    found = re.search(pattern, debug_text)
    return found.groups() if found else ("?", "?")


def framing(text: str) -> str:
    """Return how the push was presented to the model."""
    at = text.find(PUSH)
    around = text[max(0, at - 600) : at]
    if "<channel" in around:
        return "channel tag"
    if "Another Claude session" in around:
        return "peer inbox"
    return "task notification" if "<task-notification>" in around else "other"


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def selftest(options: argparse.Namespace) -> int:
    """Return 0 if the harness passes the good toy server and no other.

    Clients before 2.1.200 never ask for the modern protocol, so that fault cannot show there.
    """
    wrong = 0
    for fault in FAULTS:
        command = [sys.executable, str(Path(__file__).with_name("toy_server.py")), fault]
        given = {**vars(options), "timeout": 20, "push_wait": 1, "expect_push": False}
        report = Run(argparse.Namespace(**given), command)()
        unasked = fault == "modern" and all(each["era"][0] == "?" for each in report["clients"])
        right = unasked or report["ok"] == (fault == "ok")
        wrong += not right
        failed = [what for holds, what in report["checks"] if not holds]
        print(f"{'PASS' if right else 'FAIL'} toy server {fault!r}: {failed[:2]}")
    return 1 if wrong else 0


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--claude", default=os.environ.get("CLAUDE_BIN") or shutil.which("claude"))
    add("--name", default="claude-peers", help="the server's name in the client's configuration")
    add("-n", type=int, default=2, help="clients at the same time")
    add("--timeout", type=float, default=60)
    add("--push-wait", type=float, default=5, help="seconds an idle client has to be woken")
    add(
        "--settle",
        type=float,
        default=0,
        help="seconds between the sends and check_messages; 2.5 shows messages that a server "
        "handed to a channel nobody listens to, and then forgot",
    )
    add("--linger", type=float, default=3, help="seconds servers have to end after their clients")
    add("--env", action="append", default=[], metavar="K=V", help="environment of the server")
    add("--expect-push", action="store_true", help="fail unless the idle client is woken")
    add("--allow-modern", action="store_true", help="accept MCP revision 2026-07-28")
    add("--allow-daemon", action="store_true", help="accept processes left behind; they are ended")
    add("--keep", action="store_true", help="keep the scratch directory with the debug logs")
    add("--json", action="store_true")
    add("--selftest", action="store_true")
    add("command", nargs="*")
    return options


def show(report: dict[str, Any]) -> None:
    """Print a report for a person."""
    print(report["client"])
    for holds, what in report["checks"]:
        print("ok  " if holds else "FAIL", what)
    for number, client in enumerate(report["clients"]):
        print(f"client {number}: connected in {client['connect_ms']} ms, {client['delivery']}")
    print("push to an idle client:", report.get("push"))


def main() -> int:
    """Run and return the exit status."""
    options = parser().parse_args()
    if not options.claude or not os.access(options.claude, os.X_OK):
        print("no claude executable: give --claude or CLAUDE_BIN", file=sys.stderr)
        return 77
    if options.selftest:
        return selftest(options)
    if not options.command or options.n < 2:
        parser().print_usage(sys.stderr)
        return 2
    report = Run(options, options.command)()
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
