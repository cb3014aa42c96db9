"""Claude Code's own record of a running session, `<config folder>/sessions/<pid>.json`, read only.

Nothing about that file is promised to us: fields come and go with versions, it is written in
place (a reader may find it cut off), stays behind when the client is killed, and a later process
may have the pid. So a record counts only if it names its process, and its start time where it
tells one; any field of another kind than expected is not there.

Known statuses (2.1.330): `busy`; `waiting` for the user in the middle of something; `idle`;
`shell`, which is idle while a command runs in the background.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from claude_peers.host import processes

_LARGEST = 64 * 1024
_FUTURE = 1e14
"""Milliseconds since the epoch that no clock shows."""
_STATES = {"idle": "idle", "shell": "idle", "busy": "busy", "waiting": "busy"}
# A pipe in the file's place must not stop the session that looks at it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a session's client says of it; what it does not say is None.

    Attributes:
        pid: the client's process.
        session_id: the session it has open now; `/clear` and `/resume` change it.
        status: what the client is doing, in its own word.
        status_at: seconds since the epoch at which it began to.
        entrypoint: how it was started: `cli` for the terminal, `sdk-cli` for `claude -p`.
        version: the client's version.
        socket_path: where it takes messages from its own programs.
    """

    pid: int
    session_id: str | None = None
    status: str | None = None
    status_at: float | None = None
    entrypoint: str | None = None
    version: str | None = None
    socket_path: str | None = None

    @property
    def state(self) -> str:
        """Whether the agent is `idle` or `busy`, empty where its word is not known."""
        return _STATES.get(self.status or "", "")


def config_folder(environ: Mapping[str, str]) -> str:
    """Return where Claude Code keeps its own files."""
    return environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")


def path(folder: str, pid: int) -> str:
    """Return where the record of the client with `pid` is, if there is one."""
    return os.path.join(folder, "sessions", f"{pid}.json")


def read(folder: str, pid: int) -> Record | None:
    """Return the record of the client with `pid`, None if there is none to be believed.

    Args:
        folder: Claude Code's configuration folder.
        pid: the client's process.
    """
    told = _load(path(folder, pid))
    if told is None or type(told.get("pid")) is not int or told["pid"] != pid:
        return None
    if not _same_process(pid, _word(told, "procStart")):
        return None
    return Record(
        pid=pid,
        session_id=_word(told, "sessionId"),
        status=_word(told, "status"),
        status_at=_moment(told.get("statusUpdatedAt")),
        entrypoint=_word(told, "entrypoint"),
        version=_word(told, "version"),
        socket_path=_word(told, "messagingSocketPath"),
    )


class Activity:
    """What an agent is doing, as far as its client's record tells; asking costs one stat.

    Args:
        folder: Claude Code's configuration folder.
        pid: the client's process.
    """

    def __init__(self, folder: str, pid: int) -> None:
        self._folder = folder
        self._pid = pid
        self._seen: tuple[int, int, int] | None = None
        self._record: Record | None = None

    @property
    def state(self) -> str:
        """Whether the agent is `idle` or `busy`, empty if nobody can tell."""
        record = self._current()
        return record.state if record else ""

    @property
    def idle_since(self) -> float | None:
        """When it became idle, seconds since the epoch; None if it is not, or nobody can tell."""
        record = self._current()
        return record.status_at if record and record.state == "idle" else None

    @property
    def session_id(self) -> str | None:
        """The id of the session it has open now; None if nobody can tell."""
        record = self._current()
        return record.session_id if record else None

    def _current(self) -> Record | None:
        try:
            facts = os.stat(path(self._folder, self._pid))
        except (OSError, ValueError):
            self._seen = self._record = None
            return None
        seen = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        if self._record is None or seen != self._seen:
            # One that could not be read may be in the middle of being written: look again.
            self._seen, self._record = seen, read(self._folder, self._pid)
        return self._record


def _load(file: str) -> dict[str, Any] | None:
    try:
        descriptor = os.open(file, _FLAGS)
    except (OSError, ValueError):
        return None
    try:
        told = json.loads(os.read(descriptor, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    return told if isinstance(told, dict) else None


def _same_process(pid: int, told: str | None) -> bool:
    """Whether `pid` is the process that `told`, its start time, was written for.

    Only Linux tells it the way we do; where the two cannot be compared, the pid is enough.
    """
    if told is None or not told.isdecimal():
        return True
    started = processes.start_time(pid)
    return started is not None and (started == told or not started.isdecimal())


def _word(told: dict[str, Any], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) and value and value.isprintable() else None


def _moment(value: object) -> float | None:
    """Return milliseconds since the epoch as seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 1000 if 0 < value < _FUTURE else None
