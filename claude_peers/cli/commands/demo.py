"""See it work: three sessions talk, the broker's process is killed, nothing is lost.

Everything runs on a free port and in a scratch folder that is removed at the end.

exit code: 0 only if every message arrived, once
"""

import argparse
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from claude_peers.cli import output
from claude_peers.cli.agent import Agent, SilentError
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError
from claude_peers.host import paths

NAMES = ("planner", "builder", "reviewer")
AFTER_THE_CRASH = 10
_MARK = re.compile(r"\[demo (\d+)\]")
_WIDTH = 9


@dataclass
class Tally:
    """What was sent, and what agents have seen of it."""

    sent: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    push_ms: list[float] = field(default_factory=list)
    takeover_ms: float = 0.0

    @property
    def lost(self) -> int:
        """Messages that no agent saw."""
        return self.sent - len(self.seen)

    @property
    def duplicates(self) -> int:
        """Messages that an agent saw more than once."""
        return sum(count - 1 for count in self.seen.values())


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Run the story; exit 0 only if nothing was lost."""
    folder = tempfile.mkdtemp(prefix="claude-peers-demo-")
    story = Story(folder, quiet=options.json)
    try:
        story.play()
    except ClaudePeersError as error:
        story.say("demo", output.style(str(error), "red"))
        story.failed = str(error)
    finally:
        story.end()
        shutil.rmtree(folder, ignore_errors=True)
    return story.conclude()


class Story:
    """The demonstration, scene by scene."""

    def __init__(self, folder: str, *, quiet: bool) -> None:
        self.failed: str | None = None
        self._quiet = quiet
        self._folder = folder
        self._tally = Tally()
        self._agents: dict[str, Agent] = {}
        self._ids: dict[str, str] = {}
        self._environ = _environment(folder)
        self._sent_at = 0.0

    def play(self) -> None:
        """Everything in order."""
        self._title("Three sessions start. The first becomes the broker, nobody set one up.")
        for name in NAMES:
            self._start(name)
        self._title("They find each other and talk. A push arrives by itself.")
        self._talk()
        self._title("The process that holds the broker is killed (SIGKILL) in mid-conversation.")
        self._crash()
        self._title("The killed session comes back: same identity, its unread message waits.")
        self._come_back()

    def conclude(self) -> int:
        """Print the summary; return the exit code."""
        tally = self._tally
        good = self.failed is None and not tally.lost and not tally.duplicates
        push = sorted(tally.push_ms)[len(tally.push_ms) // 2] if tally.push_ms else 0.0
        if self._quiet:
            output.tell(
                {
                    "ok": good,
                    "sent": tally.sent,
                    "delivered": len(tally.seen),
                    "lost": tally.lost,
                    "duplicates": tally.duplicates,
                    "push_ms": round(push, 2),
                    "takeover_ms": round(tally.takeover_ms, 2),
                    "error": self.failed,
                }
            )
        else:
            line = (
                f"sent {tally.sent} · delivered {len(tally.seen)} · lost {tally.lost} · "
                f"push {push:.1f} ms · takeover {tally.takeover_ms:.0f} ms"
            )
            output.say()
            output.say(
                output.style(f"  {'✔' if good else '✘'} {line}", "bold", "green" if good else "red")
            )
            output.say(output.style("  Next: claude mcp add --scope user claude-peers -- "
                                    f"{_program()}", "dim"))  # fmt: skip
        return output.OK if good else output.FAILED

    def end(self) -> None:
        """End every session."""
        for agent in self._agents.values():
            agent.close()

    def say(self, who: str, text: str) -> None:
        """Print what somebody does."""
        if not self._quiet:
            output.say(f"  {output.style(f'{who:<{_WIDTH}}', 'cyan')} {text}")

    # Scenes

    def _start(self, name: str) -> None:
        agent = self._agents[name] = Agent(name, self._environ, self._folder)
        self._ids[name] = self._id_of(name)
        leader = self._status().get("pid") == agent.process.pid
        role = output.style("leads: it is the broker", "yellow") if leader else "joined"
        self.say(name, f"pid {agent.process.pid}, answered in {agent.ready_ms:.0f} ms, {role}")

    def _talk(self) -> None:
        for name, text in zip(NAMES, ("plans", "builds", "reviews"), strict=True):
            self._call(name, "set_summary", summary=f"The {name}, who {text}.")
        listed = self._call("planner", "list_peers", scope="machine")
        found = re.findall(r"Name: (\S+)", listed)
        self.say("planner", f"list_peers finds {', '.join(found)}")
        self._send("planner", "builder", "Is the parser ready?")
        self._arrival("builder")
        self._send("builder", "planner", "It is; tests are green.", reply_to=self._read("builder"))
        self._arrival("planner")
        self._read("planner")
        self._send("builder", "planner", "Please read this when you are back.")
        self._arrival("planner")
        self.say("planner", "does not read that one yet")

    def _crash(self) -> None:
        victim, before = self._leader()
        senders = [name for name in NAMES if name != victim]
        self._send(senders[0], senders[1], "One before the crash.")
        killed = time.perf_counter()
        self._agents[victim].kill()
        self.say(
            victim, output.style(f"killed: pid {before['pid']}, epoch {before['epoch']}", "red")
        )
        self._send(senders[0], senders[1], "The first after the crash.", quiet=True)
        self._tally.takeover_ms = (time.perf_counter() - killed) * 1000
        heir, after = self._leader()
        took = f"took over in {self._tally.takeover_ms:.0f} ms (kill to the next accepted message)"
        self.say(heir, output.style(f"{took}, epoch {after['epoch']}", "yellow"))
        for _ in range(AFTER_THE_CRASH):
            self._send(senders[0], senders[1], "More.", quiet=True)
        self.say(senders[0], f"sent {AFTER_THE_CRASH + 1} more messages meanwhile")
        self._read(senders[1])
        self.say(senders[1], f"has seen {len(self._tally.seen)} of {self._tally.sent} so far")

    def _come_back(self) -> None:
        name = next(n for n, a in self._agents.items() if a.process.poll() is not None)
        agent = self._agents[name] = Agent(name, self._environ, self._folder)
        same = self._id_of(name) == self._ids[name]
        self.say(name, f"pid {agent.process.pid}, id {self._ids[name]}: "
                       f"{'the same as before' if same else 'NOT the one it had'}")  # fmt: skip
        self._read(name)

    # Steps

    def _send(
        self, sender: str, to: str, text: str, *, reply_to: int | None = None, quiet: bool = False
    ) -> None:
        self._tally.sent += 1
        given: dict[str, Any] = {"to_id": to, "message": f"[demo {self._tally.sent}] {text}"}
        if reply_to is not None:
            given["reply_to"] = reply_to
        self._sent_at = time.perf_counter()
        self._call(sender, "send_message", **given)
        if not quiet:
            self.say(sender, f"→ {to}: {text}")

    def _arrival(self, name: str) -> None:
        came, params = self._agents[name].next_push()
        took = (came - self._sent_at) * 1000
        self._tally.push_ms.append(took)
        sender = params["meta"].get("from_name", "?")
        self.say(name, output.style(f"← pushed from {sender} after {took:.1f} ms", "green"))

    def _read(self, name: str) -> int:
        """Let an agent read its messages; return the id of the last one."""
        last, text = 0, "-"
        while _MARK.search(text) or text == "-":
            text = self._call(name, "check_messages")
            if _MARK.search(text):
                last = int(re.findall(r"message_id (\d+)", text)[-1])
        return last

    def _call(self, name: str, tool: str, **given: Any) -> str:
        """Let an agent call a tool; whatever it asks, the answer may bring messages as well."""
        text = self._agents[name].call(tool, **given)
        marks = [int(mark) for mark in _MARK.findall(text)]
        for mark in marks:
            self._tally.seen[mark] = self._tally.seen.get(mark, 0) + 1
        if marks:
            self.say(name, f"{tool} shows {len(marks)} message(s)")
        return text

    def _id_of(self, name: str) -> str:
        return self._call(name, "whoami").partition("ID: ")[2].partition("\n")[0]

    def _title(self, text: str) -> None:
        if not self._quiet:
            output.say(f"\n{output.style(text, 'bold')}")

    def _leader(self) -> tuple[str, dict[str, Any]]:
        status = self._status()
        for name, agent in self._agents.items():
            if agent.process.pid == status.get("pid"):
                return name, status
        raise SilentError("None of the sessions leads", "Look at the log.")

    def _status(self) -> dict[str, Any]:
        with Broker(self._environ) as broker:
            return broker.status()


def _environment(folder: str) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "USERPROFILE", "LOCALAPPDATA", "TEMP", "TMP")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        # A home of its own, so that nothing of the user's is read; the cache may be shared.
        "HOME": folder,
        "XDG_STATE_HOME": folder,
        "XDG_CACHE_HOME": os.path.dirname(paths.cache_folder(os.environ)),
        "CLAUDE_PEERS_DB": os.path.join(folder, "demo.db"),
        "CLAUDE_PEERS_PORT": str(port),
        "CLAUDE_PEERS_SUMMARY": "off",
    }


def _program() -> str:
    name = os.path.abspath(sys.argv[0])
    return name if name.endswith(".pyz") else "claude-peers"
