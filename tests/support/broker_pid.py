"""Which process holds the broker's port."""

from pathlib import Path

from support.http import get
from support.waiting import eventually

LISTEN = "0A"
"""The state column of /proc/net/tcp for a listening socket (Linux, include/net/tcp_states.h)."""


def broker_pid(port: int) -> int | None:
    """Return the pid that listens on 127.0.0.1:`port`, or None.

    The system is asked where it tells (Linux); elsewhere the broker's own word counts.
    """
    if Path("/proc/net/tcp").exists():
        return _owner(_inodes(port))
    try:
        return int(get(port, "/health", timeout=3).json()["pid"])
    except (OSError, ValueError, KeyError):
        return None


def wait_for_broker(port: int, *, other_than: int | None = None, timeout: float = 15) -> int:
    """Return the pid of the broker, once it answers and is not `other_than`."""

    def serving() -> int | None:
        pid = broker_pid(port)
        if pid is None or pid == other_than:
            return None
        try:
            return pid if get(port, "/health", timeout=3).status == 200 else None
        except OSError:
            return None

    return eventually(serving, timeout=timeout, what=f"a broker on port {port}")


def _inodes(port: int) -> set[str]:
    wanted = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {row[9] for row in rows if row[1] == wanted and row[3] == LISTEN}


def _owner(inodes: set[str]) -> int | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return None
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and _holds(folder / "fd", wanted):
            return int(folder.name)
    return None


def _holds(folder: Path, wanted: set[str]) -> bool:
    try:
        return any(_target(entry) in wanted for entry in folder.iterdir())
    except OSError:
        return False  # it ended meanwhile, or is another user's


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""
