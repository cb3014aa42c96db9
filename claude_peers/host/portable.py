"""Process facts on macOS and Windows, asked of psutil, which is loaded when first needed.

Same promises as `host.linux`; only what start time and boot id are made of differs. Start times
are points in time here, not counted from the boot, so the boot id need only keep machines apart.
"""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from claude_peers.core.models import Process

if TYPE_CHECKING:
    import psutil

Fact = TypeVar("Fact")
_ADDRESSES = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared with, never bound
_TIMEOUT = 2.0
"""Seconds the system's own tool may take."""


def start_time(pid: int) -> str | None:
    """Return a word for when `pid` was started."""
    return _ask(pid, _started)


def alive(process: Process) -> bool:
    """Whether `process` still runs; one that we may not look at counts as running."""
    import psutil

    try:
        found = psutil.Process(process.pid)
        return _started(found) == process.started and found.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError):
        return False


def parent_of(pid: int) -> int | None:
    """Return the parent's pid, None at the top."""
    return _ask(pid, lambda process: process.ppid()) or None


def command_line(pid: int) -> list[str]:
    """Return the arguments of `pid`, the program first."""
    return _ask(pid, lambda process: process.cmdline()) or []


def is_stopped(pid: int) -> bool:
    """Whether `pid` is suspended, not merely asleep."""
    return _ask(pid, lambda process: process.status()) == "stopped"


def terminal(pid: int) -> str | None:
    """Return the controlling terminal of `pid` alone, like `ttys003`; Windows has none."""
    name = _ask(pid, lambda process: process.terminal() if hasattr(process, "terminal") else None)
    return name.removeprefix("/dev/") if name else None


def boot_id(platform: str = sys.platform) -> str:
    """Return what tells this machine, and where possible this boot of it, from others."""
    if platform == "darwin":
        return _output("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid") or host_name()
    return host_name()


def pid_namespace() -> str:
    """Return nothing: there is one for all."""
    return ""


def host_name() -> str:
    """Return this machine's name."""
    import socket

    return socket.gethostname()


def user_id() -> int:
    """Return our user's id; -1 where users have no number."""
    return os.getuid() if hasattr(os, "getuid") else -1


def revive(process: Process) -> bool:
    """Let a suspended process go on, if it still is the one that is meant."""
    import psutil

    try:
        found = psutil.Process(process.pid)
        if _started(found) != process.started or found.status() == psutil.STATUS_ZOMBIE:
            return False
        found.resume()
    except (psutil.Error, ValueError):
        return False
    return True


def listeners(port: int) -> list[tuple[int, int]]:
    """Return (pid, uid) of who listens on `port` for 127.0.0.1, the closest address first.

    Without privileges only our own processes may be visible. On Windows a process of ours has
    the uid -1, like `user_id`, and others are left out.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            rank = _rank(process, port)
            if rank is not None:
                found.append((rank, process.pid, _uid(process)))
        except psutil.Error:
            continue
    return [(pid, uid) for _, pid, uid in sorted(found) if uid is not None]


def _rank(process: "psutil.Process", port: int) -> int | None:
    """Return how closely the process listens on 127.0.0.1:`port`, 0 being closest."""
    ranks = [
        _ADDRESSES.index(each.laddr.ip)
        for each in process.net_connections(kind="tcp")
        if each.status == "LISTEN" and each.laddr.port == port and each.laddr.ip in _ADDRESSES
    ]
    return min(ranks, default=None)


def _uid(process: "psutil.Process") -> int | None:
    if hasattr(process, "uids"):
        return int(process.uids().real)
    import psutil  # pragma: no cover - only Windows has processes without uids

    ours = process.username() == psutil.Process().username()  # pragma: no cover - Windows
    return -1 if ours else None  # pragma: no cover - Windows


def _started(process: "psutil.Process") -> str:
    """Return the start time in a form that a change of the clock leaves alone.

    psutil corrects create_time() for such changes as it sees them, so two processes may be told
    different numbers; what it hashes is uncorrected. Windows keeps the plain time of the start,
    and hashes nothing for a process it may not open.
    """
    return f"{hash(process):x}" if hasattr(process, "uids") else repr(process.create_time())


def _ask(pid: int, question: "Callable[[psutil.Process], Fact]") -> Fact | None:
    """Return the answer of a process, None if it is gone or does not tell."""
    import psutil

    try:
        return question(psutil.Process(pid))
    except (psutil.Error, ValueError):
        return None


def _output(*command: str) -> str:
    """Return what a tool of the system prints, nothing if it cannot be run."""
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, absolute path
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def addresses() -> set[str]:
    """Return this machine's IPv4 addresses."""
    import socket

    import psutil

    found = (each for those in psutil.net_if_addrs().values() for each in those)
    return {str(each.address) for each in found if each.family == socket.AF_INET}
