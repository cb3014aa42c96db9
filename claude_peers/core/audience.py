"""Whom a broadcast reaches that names no topic."""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from claude_peers.core import discovery
from claude_peers.core.errors import NotPossibleError
from claude_peers.core.limits import NAME
from claude_peers.core.models import Peer
from claude_peers.core.text import one_line

UNCONFIRMED = 5
"""Recipients of a scope that are reached without having been told beforehand."""
_SCOPES = {"machine": "machine", "repo": "repo", "dir": "directory", "directory": "directory"}

_GROUPS = {"fleet": "fleet_id", "device": "device_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sender is: directory, root of the work tree, repository, joined machine."""

    cwd: str | None = None
    root: str | None = None
    repo: str | None = None
    machine: str = ""


def of_scope(scope: str, peers: Collection[Peer], place: Place) -> list[Peer]:
    """Return the peers of a scope as seen from a place.

    Args:
        scope: `@machine`, `@repo`, `@dir`, or `@` and a name, in which `*` and `?` stand for any
            characters and any one; the first three also without `@`, as other implementations
            have them. `@fleet:` and `@device:` with a name mean who told that it is there.
        peers: whom to choose from.
        place: where the sender is.

    Raises:
        NotPossibleError: that is no scope.
    """
    word = scope.removeprefix("@")
    if (known := _SCOPES.get(word)) is not None:
        near = [peer for peer in peers if peer.machine == place.machine]
        return discovery.visible(
            near, known, cwd=place.cwd, root=place.root, repo=place.repo, machine=place.machine
        )
    kind, _, group = word.partition(":")
    if kind in _GROUPS and group and word != scope:
        return [peer for peer in peers if getattr(peer.profile, _GROUPS[kind]) == group]
    if not word or word == scope:
        raise NotPossibleError(
            f"{one_line(scope, NAME)!r} is no scope",
            "Use @machine, @repo, @dir, @fleet:NAME, @device:NAME, or @ and a name such as @api-*.",
        )
    pattern = word.lower().replace("[", "[[]")  # sets of characters are no part of a scope
    return [peer for peer in peers if fnmatchcase(peer.name, pattern)]


def of_workspace(workspace: str, peers: Collection[Peer], place: Place) -> list[Peer]:
    """Return the peers on the sender's machine whose work tree or directory is called so.

    An empty name means the sender's own; who is nowhere has none.
    """
    wanted = workspace or place.root or place.cwd or ""
    near = [peer for peer in peers if peer.machine == place.machine]
    return [each for each in near if wanted and wanted in _called(each.git_root or each.cwd)]


def _called(path: str) -> tuple[str, str]:
    return path, path.replace("\\", "/").rstrip("/").rpartition("/")[2]
