"""Which peers a scope shows, and which one a target means."""

from collections.abc import Callable, Collection, Iterable

from claude_peers.core.errors import AmbiguousPeerError, PeerNotFoundError
from claude_peers.core.models import Peer, Presence


def visible(
    peers: Iterable[Peer],
    scope: str,
    *,
    cwd: str | None,
    root: str | None,
    repo: str | None = None,
    machine: str = "",
) -> list[Peer]:
    """Return the peers of `scope` (directory, repo; anything else is machine).

    Args:
        peers: whom to choose from.
        scope: what the caller asked for.
        cwd: the caller's directory; none, or an empty one, shows nobody in scope directory.
        root: the root of the caller's work tree; without one, repo means the directory.
        repo: the caller's common git directory, which work trees of one repository share.
        machine: the caller's; a directory of the same name on another one is another directory.
    """
    same: Callable[[Peer], bool]
    if scope == "directory" or (scope == "repo" and not root):
        same = lambda peer: bool(cwd) and peer.cwd == cwd  # noqa: E731
    elif scope == "repo":
        same = lambda peer: peer.git_root == root or (bool(repo) and peer.repo == repo)  # noqa: E731
    else:
        return list(peers)
    return [peer for peer in peers if peer.machine == machine and same(peer)]


def resolve(
    target: str, peers: Collection[Peer], *, host: str, now: float = 0.0, machine: str = ""
) -> Peer:
    """Return the one peer that `target` means: an id, a name, `name@host` or a directory.

    A directory means one on the `machine` of whoever asks.

    An id wins over a name. Then come, in this order: who is there under that name or in that
    directory, who is away, who had the name (or the id) within the last day, and the last that
    left for good, whose mailbox keeps the message for the name's next holder.

    Raises:
        PeerNotFoundError: nobody answers to it.
        AmbiguousPeerError: several do.
    """
    for peer in peers:
        if peer.id == target and peer.presence is not Presence.DEPARTED:
            return peer
    name, _, where = target.partition("@")
    near = [peer for peer in peers if where in ("", peer.host or host)]
    named = [peer for peer in near if peer.name == name]
    beside = [peer for peer in peers if peer.machine == machine]
    found = (
        [peer for peer in named if peer.presence is Presence.PRESENT]
        or _in_directory(target, beside, Presence.PRESENT)
        or [peer for peer in named if peer.presence is Presence.AWAY]
        or [p for p in near if p.presence is not Presence.DEPARTED and _had_name(p, name, now)]
        or _in_directory(target, beside, Presence.AWAY)
        or sorted(named, key=lambda peer: peer.last_seen)[-1:]
    )
    if not found:
        raise PeerNotFoundError(target)
    if len(found) > 1:
        raise AmbiguousPeerError(target, tuple(f"{peer.id} ({peer.name})" for peer in found))
    return found[0]


def _in_directory(target: str, peers: Iterable[Peer], presence: Presence) -> list[Peer]:
    if not target.startswith(("/", "~")):
        return []
    return [peer for peer in peers if peer.cwd == target and peer.presence is presence]


def _had_name(peer: Peer, name: str, now: float) -> bool:
    return any(former == name and until > now for former, until in peer.former)
