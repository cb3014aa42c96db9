"""What is recorded beside a database of its leader: the lock, the port, and who must not lead."""

import logging
import os
from typing import TYPE_CHECKING

from claude_peers.core.errors import ClaudePeersError, NoBrokerError, StoreError
from claude_peers.host import files, sockets

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

LONGEST_HOLD = 3600.0
"""Seconds for which `kill-broker --for` can keep everybody from leading."""
LOCK = "broker.lock"
"""The lock that a leader holds, in the state folder."""
_PORT = "broker.port"
_HOLD = "hold"


def lock(folder: str) -> "FileLock | None":
    """Return the leader's lock in a state folder, acquired; None if another process holds it.

    Raises:
        StoreError: the folder cannot be locked, or is not private.
    """
    from filelock import FileLock, Timeout  # a follower never asks

    files.private_folder(folder)
    path = os.path.join(folder, LOCK)
    files.private_file(path)
    # Never a soft lock: it cannot tell a dead holder. Not per thread: the watchdog releases.
    held = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise StoreError(
            f"The folder {folder} cannot be locked: {error}",
            "Put the database on a local disk with CLAUDE_PEERS_DB.",
        ) from error
    return held


def note_port(folder: str, port: int) -> None:
    """Record the leader's port; it changes so rarely that a take-over writes nothing.

    Raises:
        StoreError: it cannot be recorded.
    """
    path = os.path.join(folder, _PORT)
    told = b"%d" % port
    if files.read_private(path) != told:
        files.write_private(path, told)


def elsewhere(folder: str, port: int) -> int | None:
    """Return the port on which the leader serves, None if that is `port`, unknown, or nobody's.

    Raises:
        StoreError: the record cannot be read.
    """
    told = files.read_private(os.path.join(folder, _PORT))
    if not told or not told.isdigit() or int(told) == port:
        return None
    # The record may be an earlier leader's: one that has just won the lock serves in a moment.
    if not files.is_locked(os.path.join(folder, LOCK)):
        return None
    return None if sockets.listener_uid(int(told)) is None else int(told)


def in_use(database: str, port: int) -> NoBrokerError:
    """Return what to tell whoever wants a database that is led on another port."""
    pids = ", ".join(map(str, sockets.listener_pids(port)))
    return NoBrokerError(
        f"{database} is in use by the broker on port {port}" + (f" (pid {pids})" if pids else ""),
        f"Use that one with CLAUDE_PEERS_PORT={port}, or another database with CLAUDE_PEERS_DB.",
    )


def hold_back(folder: str, seconds: float, *, now: float) -> None:
    """Keep everybody from leading for a while from `now`, seconds since the epoch.

    Where that cannot be recorded, it is logged.
    """
    until = f"{now + min(seconds, LONGEST_HOLD):.3f}".encode()
    try:
        files.write_private(os.path.join(folder, _HOLD), until)
    except ClaudePeersError as error:
        log.warning("nobody is kept from leading: %s", error)


def is_held_back(folder: str, *, now: float) -> bool:
    """Tell whether everybody is kept from leading at `now`, seconds since the epoch.

    Raises:
        StoreError: the record cannot be read.
    """
    held = files.read_private(os.path.join(folder, _HOLD))
    try:
        # A clock that was set back must not keep everybody from leading for longer.
        return held is not None and 0 < float(held) - now <= LONGEST_HOLD
    except ValueError:
        return False
