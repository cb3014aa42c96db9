"""Peers as their user names them, and as lists show them."""

import os
from typing import Any

from claude_peers.cli.reach import Broker
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line


def means(target: str, peer: dict[str, Any]) -> bool:
    """Whether a peer is what a user means by `target`; `core.discovery` has the rules."""
    name, _, host = target.partition("@")
    return target in (peer["id"], peer["cwd"]) or (
        name == peer.get("name") and host in ("", peer.get("hostname"))
    )


def meant(target: str) -> str:
    """Return `target` with its name in lower case, as names are, unless a peer is called so."""
    name, at, host = target.partition("@")
    if name == name.lower() or os.sep in target:
        return target
    with Broker() as broker:
        known = any(means(target, peer) for peer in broker.peers(gone=True))
    return target if known else name.lower() + at + host


def called(peer: dict[str, Any]) -> str:
    """Return a peer's name, or its id if it has none."""
    return one_line(str(peer.get("name") or peer["id"]), NAME)


def route(peer: dict[str, Any]) -> str:
    """Return how a peer is reached and whether its agent is idle, "" if neither is known."""
    way, activity = peer.get("route") or "", peer.get("activity") or ""
    known = [way or "none", activity] if activity else [way] if way else []
    return ", ".join(one_line(str(each), NAME) for each in known)
