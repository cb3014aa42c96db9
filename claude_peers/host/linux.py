"""Process facts on Linux, read from /proc with nothing but `os`.

A follower keeps this loaded for its whole life, so it imports no more than it must. What is not
known is None, empty or 0; a process that vanishes while it is looked at is simply gone.
"""

import os

from claude_peers.core.models import Process

_PTS = range(136, 144)  # Documentation/admin-guide/devices.txt: Unix98 PTY slaves
_DEAD = "ZXx"


def start_time(pid: int) -> str | None:
    """Return ticks between boot and the start of `pid`; no change of the clock moves them."""
    stat = _stat(pid)
    return None if stat is None else stat[19]


def alive(process: Process) -> bool:
    """Whether `process` still runs; one that is hidden from us but there counts as running."""
    stat = _stat(process.pid)
    if stat is None:
        return _exists(process.pid)
    return stat[19] == process.started and stat[0] not in _DEAD


def parent_of(pid: int) -> int | None:
    """Return the parent's pid, None at the top."""
    stat = _stat(pid)
    return None if stat is None else int(stat[1]) or None


def command_line(pid: int) -> list[str]:
    """Return the arguments of `pid`, the program first."""
    text = read(f"/proc/{pid}/cmdline")
    if not text:
        return []
    return text.removesuffix(b"\0").decode("utf-8", "replace").split("\0")


def is_stopped(pid: int) -> bool:
    """Whether `pid` is suspended (SIGSTOP, Ctrl-Z), not merely asleep."""
    stat = _stat(pid)
    return stat is not None and stat[0] == "T"


def terminal(pid: int) -> str | None:
    """Return the controlling terminal of `pid` alone, like `pts/3`."""
    stat = _stat(pid)
    device = 0 if stat is None else int(stat[4]) & 0xFFFFFFFF
    if not device:
        return None
    # The kernel's new_encode_dev(): 12 bits of major between the minor's low 8 and high 12.
    major = device >> 8 & 0xFFF
    minor = device & 0xFF | device >> 12 & 0xFFF00
    if major in _PTS:
        return f"pts/{minor + 256 * (major - _PTS[0])}"
    event = read(f"/sys/dev/char/{major}:{minor}/uevent") or b""
    names = [line[8:] for line in event.split(b"\n") if line.startswith(b"DEVNAME=")]
    return names[0].decode("utf-8", "replace") if names else None


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return (read("/proc/sys/kernel/random/boot_id") or b"").decode("ascii", "replace").strip()


def pid_namespace() -> str:
    """Return the namespace in which our pids count, like `pid:[4026531836]`."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def host_name() -> str:
    """Return this machine's name."""
    return os.uname().nodename


def user_id() -> int:
    """Return our user's id."""
    return os.getuid()


def revive(process: Process) -> bool:
    """Let a suspended process go on, if it still is the one that is meant."""
    import signal

    if not alive(process):
        return False
    try:
        os.kill(process.pid, signal.SIGCONT)
    except OSError:
        return False
    return True


def read(path: str) -> bytes | None:
    """Return a small file's bytes, None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third (state) on, so field n is at n - 3."""
    text = read(f"/proc/{pid}/stat") if pid > 0 else None
    if not text:
        return None
    # The second field is the program's name in parentheses, and a name may hold anything.
    return text.rpartition(b")")[2].decode("ascii", "replace").split()


def _exists(pid: int) -> bool:
    """Whether there is such a process although /proc does not show it (hidepid)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
