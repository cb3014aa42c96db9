"""What is known about processes, asked the same way on every system.

A pid alone names another process after a while, so whoever is remembered is a `Process`: pid and
start time. Linux reads /proc itself, for a follower must stay small; the others ask psutil.
"""

import sys

from claude_peers.core.models import Process

if sys.platform == "linux":
    from claude_peers.host import linux as _system
else:  # pragma: no cover - macOS and Windows; the backend is tested by itself
    from claude_peers.host import portable as _system


def start_time(pid: int) -> str | None:
    """Return when `pid` was started, None if there is no such process.

    Opaque: equal for one pid on one boot means the same process.
    """
    return _system.start_time(pid)


def identify(pid: int) -> Process | None:
    """Return the process that has `pid` now."""
    started = _system.start_time(pid)
    return None if started is None else Process(pid=pid, started=started)


def alive(process: Process) -> bool:
    """Whether `process` still runs: the same one, and not a zombie.

    Where the system will not tell because it is another user's, it counts as running.
    """
    return _system.alive(process)


def parent_of(pid: int) -> int | None:
    """Return the pid of the parent, None at the top or if there is no such process."""
    return _system.parent_of(pid)


def ancestors(pid: int, most: int = 4) -> list[int]:
    """Return the pids of parent, grandparent and so on, at most `most` of them."""
    found: list[int] = []
    parent = _system.parent_of(pid)
    while parent is not None and len(found) < most and parent not in found:
        found.append(parent)
        parent = _system.parent_of(parent)
    return found


def command_line(pid: int) -> list[str]:
    """Return the arguments of `pid`, the program first; empty if they cannot be read."""
    return _system.command_line(pid)


def is_stopped(pid: int) -> bool:
    """Whether `pid` is suspended (SIGSTOP, Ctrl-Z), not merely asleep."""
    return _system.is_stopped(pid)


def terminal(pid: int) -> str | None:
    """Return the terminal of `pid`, else of its nearest ancestor with one, like `pts/3`."""
    for each in (pid, *ancestors(pid)):
        found = _system.terminal(each)
        if found:
            return found
    return None


def revive(process: Process) -> bool:
    """Let a suspended process go on (SIGCONT); False if it is another one by now, or not ours."""
    return _system.revive(process)


def boot_id() -> str:
    """Return what tells this boot of this machine from others, empty if nothing does."""
    return _system.boot_id()


def pid_namespace() -> str:
    """Return the namespace in which our pids count, empty where there are none."""
    return _system.pid_namespace()


def host_name() -> str:
    """Return this machine's name."""
    return _system.host_name()


def user_id() -> int:
    """Return our user's id, -1 on Windows."""
    return _system.user_id()
