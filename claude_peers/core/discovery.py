"""Which peers a scope shows, and which one a target means."""

from collections.abc import Callable, Collection, Iterable

from claude_peers.core.errors import AmbiguousPeerError, PeerNotFoundError
from claude_peers.core.models import Peer, Presence


def visible(
    peers: Iterable[Peer], scope: str, *, cwd: str | None, root: str | None, repo: str | None
) -> list[Peer]:
    """Return the peers of `scope` (directory, repo; anything else is machine).

    Args:
        peers: whom to choose from.
        scope: what the caller asked for.
        cwd: the caller's directory; no directory shows nobody in scope directory.
        root: the root of the caller's work tree; without one, repo means the directory.
        repo: the caller's common git directory, which work trees of one repository share.
    """
    same: Callable[[Peer], bool]
    if scope == "directory" or (scope == "repo" and not root):
        same = lambda peer: cwd is not None and peer.cwd == cwd  # noqa: E731
    elif scope == "repo":
        same = lambda peer: peer.git_root == root or (repo is not None and peer.repo == repo)  # noqa: E731
    else:
        return list(peers)
    return [peer for peer in peers if same(peer)]


def resolve(target: str, peers: Collection[Peer], *, host: str) -> Peer:
    """Return the one peer that `target` means: an id, a name, `name@host` or a directory.

    An id wins over a name. Among several of one name or directory a present one wins over those
    that are away.

    Raises:
        PeerNotFoundError: nobody answers to it.
        AmbiguousPeerError: several do.
    """
    addressable = [peer for peer in peers if peer.presence is not Presence.DEPARTED]
    for peer in addressable:
        if peer.id == target:
            return peer
    name, _, where = target.partition("@")
    found = [
        peer
        for peer in addressable
        if (peer.name == name and where in ("", peer.host or host))
        or (target.startswith(("/", "~")) and peer.cwd == target)
    ]
    found = [peer for peer in found if peer.presence is Presence.PRESENT] or found
    if not found:
        raise PeerNotFoundError(target)
    if len(found) > 1:
        raise AmbiguousPeerError(target, tuple(f"{peer.id} ({peer.name})" for peer in found))
    return found[0]
