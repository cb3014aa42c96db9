"""Who a peer is: ids, names, and the keys by which a successor is known.

A mailbox outlives the process that reads it. The next process may adopt it when it shows one of
the mailbox's keys, knows the user's secret, and nobody alive holds the mailbox:

    live     the agent's own process (boot, pid namespace, pid, start time): a server that is
             started again within one running agent. Only for an agent recognised as Claude Code.
    resume   the agent's session id: the same conversation in a new process.
    launch   parent process, directory and client name: what a script starts again.
    shell    a name that the user chose on the command line.
    token    a name for which the user had a token made. Making another one means the same
             mailbox also while it is held: that is how a token is replaced.

Keys are hashed, so that a database or a log tells nothing about sessions.
"""

import hashlib
import re
import string
from collections.abc import Callable, Collection, Iterable, Sequence

from claude_peers.core.limits import KEYS
from claude_peers.core.models import Peer, PeerId, Presence

ALPHABET = string.ascii_lowercase + string.digits
ID_LENGTH = 8  # as upstream: claude-peers-mcp broker.ts:131
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UNNAMED = re.compile(r"[^a-z0-9._-]+")


def mint(draw: Callable[[int], int], taken: Collection[str] = ()) -> PeerId:
    """Return a new id; `draw(n)` is a random number below n."""
    while True:
        made = "".join(ALPHABET[draw(len(ALPHABET))] for _ in range(ID_LENGTH))
        if made not in taken:
            return PeerId(made)


def is_name(text: str) -> bool:
    """Whether `text` may be a peer's name."""
    return NAME.fullmatch(text) is not None


def as_name(text: str) -> str:
    """Return `text` as a name, or "peer" if nothing of it can be used."""
    return _UNNAMED.sub("-", text.lower()).strip("-._")[:64].strip("-._") or "peer"


def free_name(wanted: str, taken: Collection[str]) -> str:
    """Return `wanted`, or with the first suffix from -2 on that nobody has."""
    if wanted not in taken:
        return wanted
    count = 2
    while (name := f"{wanted[: 63 - len(str(count))]}-{count}") in taken:
        count += 1
    return name


def key(kind: str, *parts: str) -> str:
    """Return a hashed identity key, for instance `resume:3f…`."""
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kind}:{digest[:32]}"


def shares_key(keys: Collection[str], peer: Peer) -> bool:
    """Whether one of `keys` is the peer's."""
    return not set(keys).isdisjoint(peer.keys)


def is_shell(peer: Peer) -> bool:
    """Whether a peer is the user's own, by a name on the command line, and no agent's."""
    return any(each.startswith("shell:") for each in peer.keys)


def more_keys(keys: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a peer that shows further ones: the newest stay, and its live key."""
    live = [each for each in known if each.startswith("live:")][:1]
    return tuple(dict.fromkeys((*live, *keys, *known)))[:KEYS]


def same_agent(keys: Iterable[str], present: Collection[Peer]) -> Peer | None:
    """Return the peer of the very agent process that a newcomer's live key names, if it has one."""
    live = [wanted for wanted in keys if wanted.startswith("live:")]
    return next((peer for peer in present if not set(live).isdisjoint(peer.keys)), None)


def _adoptable(wanted: str) -> tuple[Presence, ...]:
    """Return the presences in which a mailbox goes to who shows this key of it."""
    if wanted.startswith("token:"):
        return (Presence.AWAY, Presence.PRESENT)
    return (Presence.AWAY,)


def predecessor(keys: Iterable[str], peers: Collection[Peer]) -> Peer | None:
    """Return the peer whose mailbox a newcomer with `keys` adopts, strongest key first."""
    for wanted in keys:
        for peer in peers:
            if wanted in peer.keys and peer.presence in _adoptable(wanted):
                return peer
    return None
