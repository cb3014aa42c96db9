"""Where a database's leader serves, recorded beside it for whoever looks on another port."""

import os

from claude_peers.core.errors import NoBrokerError
from claude_peers.host import files, sockets

LOCK = "broker.lock"
"""The lock that a leader holds, in the state folder."""
_PORT = "broker.port"


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
