"""Which agent started this server, and what that says about identity and push route.

Only Claude Code tells enough to be known again: it leaves a record of each running session under
its configuration folder, and exports the session's id and socket. Programs it starts inherit
those variables, so they count only if an ancestor of ours is the very process they name.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from claude_peers.core import identity
from claude_peers.host import processes
from claude_peers.session import record as records
from claude_peers.session.record import Record

CLAUDE_CODE = "claude-code"
CHANNEL_FLAGS = ("--dangerously-load-development-channels", "--channels")
CHANNEL_OFF = (
    "DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "DISABLE_GROWTHBOOK",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The program at the other end of our pipe.

    Attributes:
        client: its name and version, as it gave them.
        pid: its process; our parent, or an ancestor that is known to be the agent.
        session_id: its session's id, if it can be believed.
        matched: whether an ancestor is known to be Claude Code.
        entrypoint: how it was started, `cli` for a terminal; empty if that cannot be believed.
        record: its own record of the session, as it was when we looked.
    """

    client: str
    pid: int
    session_id: str | None = None
    matched: bool = False
    entrypoint: str = ""
    record: Record | None = field(default=None, compare=False)


def find(client: Mapping[str, Any], environ: Mapping[str, str]) -> Agent:
    """Return the agent for a `clientInfo`."""
    name = f"{client.get('name', '')} {client.get('version', '')}".strip()
    parent = os.getppid()
    if client.get("name") != CLAUDE_CODE:
        return Agent(client=name, pid=parent)
    socket = os.path.basename(environ.get("CLAUDE_CODE_MESSAGING_SOCKET", ""))
    folder = records.config_folder(environ)
    for pid in processes.ancestors(os.getpid(), 4):
        record = records.read(folder, pid)
        if record is not None or socket == f"{pid}.sock":
            told = record or Record(pid=pid)
            return Agent(
                client=name,
                pid=pid,
                session_id=told.session_id or environ.get("CLAUDE_CODE_SESSION_ID"),
                matched=True,
                entrypoint=told.entrypoint or environ.get("CLAUDE_CODE_ENTRYPOINT", ""),
                record=record,
            )
    return Agent(client=name, pid=parent)


def keys(agent: Agent, cwd: str) -> list[str]:
    """Return the identity keys of a session of this agent, strongest first."""
    started = processes.start_time(agent.pid) or ""
    boot = (processes.boot_id(), processes.pid_namespace())
    if not _recognised(agent):
        return [identity.key("launch", *boot, str(agent.pid), started, cwd, agent.client)]
    found = [identity.key("live", *boot, str(agent.pid), started)]
    if agent.session_id:
        found.append(identity.key("resume", agent.session_id))
    return found


def _recognised(agent: Agent) -> bool:
    """Whether the agent's process is Claude Code itself, not a script that says it were.

    Versions that leave no record are known by their command line, as `claude` or its package.
    """
    if agent.client.partition(" ")[0] != CLAUDE_CODE:
        return False
    words = [word.replace("\\", "/") for word in processes.command_line(agent.pid)[:2]]
    return agent.matched or any(
        word.rpartition("/")[2] in ("claude", "claude.exe") or "/claude-code/" in word
        for word in words
    )


def channel_proven(agent: Agent, server: str, environ: Mapping[str, str]) -> bool:
    """Whether the agent was started with this server as a channel, and nothing turns it off."""
    if any(environ.get(name) for name in CHANNEL_OFF):
        return False
    words = processes.command_line(agent.pid)
    wanted = f"server:{server}"
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag in CHANNEL_FLAGS and wanted in (value, *_values(words[place + 1 :])):
            return True
    return False


def _values(words: list[str]) -> list[str]:
    """Return the values of a flag that takes any number of them."""
    end = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:end]
