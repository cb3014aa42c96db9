"""Which peers are gone, given what is known about processes and signs of life."""

from collections.abc import Callable, Iterable

from claude_peers.core.models import Peer, PeerId, Presence, Process

SILENCE = 60.0
"""Seconds without a sign of life after which a peer without a known process is gone."""
FORGET = 7 * 24 * 3600.0
"""Seconds after which the row of a peer that is away or departed is forgotten."""


def gone(
    peers: Iterable[Peer],
    *,
    boot: str,
    alive: Callable[[Process], bool],
    linked: Callable[[PeerId], bool],
    silent_for: Callable[[PeerId], float],
    silence: float = SILENCE,
) -> list[Peer]:
    """Return the present peers that are present no longer.

    Args:
        peers: whom to judge.
        boot: this machine's boot id; a process of an earlier boot is dead whatever its pid.
        alive: whether a process of this machine still runs (another user's counts as running).
        linked: whether a peer has a live connection, which is proof enough.
        silent_for: seconds since a peer's last sign of life.
        silence: how many of them are too many.
    """
    lost = []
    for peer in peers:
        if peer.presence is not Presence.PRESENT or linked(peer.id):
            continue
        if peer.process is None:
            if silent_for(peer.id) > silence:
                lost.append(peer)
        elif not runs(peer, boot=boot, alive=alive):
            lost.append(peer)
    return lost


def runs(peer: Peer, *, boot: str, alive: Callable[[Process], bool]) -> bool:
    """Whether a peer's process is known, and runs; see `gone`."""
    return peer.process is not None and peer.boot == boot and alive(peer.process)


def presence_after(peer: Peer, *, left: bool) -> Presence:
    """Return what a peer becomes that `left` by itself, or was found to be gone.

    It is away if a successor can be known, or if it was only silent and may be heard again.
    """
    silent = not left and peer.process is None
    return Presence.AWAY if peer.keys or silent else Presence.DEPARTED
