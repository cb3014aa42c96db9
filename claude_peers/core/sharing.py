"""What peers on different machines see of each other."""

from dataclasses import replace

from claude_peers.core.models import Peer


def as_seen_from(peer: Peer, machine: str) -> Peer:
    """Return a peer as those on `machine` ("" is the broker's) may see it.

    On its own machine, and if it is shared on purpose, that is all of it. Others see name, summary
    and host, and of its directory the last part: paths, terminals and pids tell who somebody is
    and how a machine is set up, and mean nothing elsewhere.
    """
    if peer.machine == machine or peer.shared:
        return peer
    folder = (peer.git_root or peer.cwd).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return replace(peer, process=None, pid=None, cwd=folder, git_root=None, repo=None, tty=None)
