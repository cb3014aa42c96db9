"""What a peer tells about itself in agentmesh's words: fleet, device, what it can do, defaults."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line

AT_MOST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE = 0, 1, 2
"""Qualities of service: done once handed out, or once acknowledged; the third is only a word."""
CAPABILITIES = 32
"""Capabilities of one peer."""
WEBHOOK = "webhook"
TRANSPORTS = (WEBHOOK, "websocket", "channel")
"""Ways to reach a peer besides its own polls."""
UNTOLD = "claude-code"
"""The type of an agent that does not tell one (agentmesh broker.ts, /register)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A peer's own words, bounded and fit to be shown.

    Attributes:
        agentmesh: it registered as agentmesh's clients do, and is answered in their shapes.
        agent_name: the name as it was told; `Peer.name` is what it answers to.
        capabilities: what it says it can do.
        fleet_id, device_id: which group of agents it is one of, and on what it runs.
        default_qos: the quality of messages to it whose sender asks for none.
        default_ttl_ms: how long these are kept unread; None is as usual.
    """

    agentmesh: bool = False
    agent_name: str = ""
    capabilities: tuple[str, ...] = ()
    fleet_id: str | None = None
    device_id: str | None = None
    default_qos: int = AT_LEAST_ONCE
    default_ttl_ms: int | None = None

    def ttl(self, asked_ms: int | None) -> float | None:
        """Return the seconds a message to it is to be kept, as far as anybody has said so."""
        wanted = self.default_ttl_ms if asked_ms is None else asked_ms
        return None if wanted is None else wanted / 1000.0


NOTHING_TOLD: Final = Profile()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list is narrowed to; what is empty narrows nothing.

    Attributes:
        agent_type: what the client is called.
        capabilities: all of them have to be there.
    """

    agent_type: str = ""
    capabilities: Collection[str] = ()
    fleet_id: str = ""
    device_id: str = ""

    def is_met(self, told_type: str, profile: Profile) -> bool:
        """Whether a peer is one of those."""
        return (
            self.agent_type in ("", agent_type(told_type, profile))
            and self.fleet_id in ("", profile.fleet_id)
            and self.device_id in ("", profile.device_id)
            and set(self.capabilities) <= set(profile.capabilities)
        )


def agent_type(told: str, profile: Profile) -> str:
    """Return a client's name; who speaks agentmesh and tells none is Claude Code there."""
    return told or (UNTOLD if profile.agentmesh else "")


def granted(qos: int | None, usual: int = AT_LEAST_ONCE) -> int:
    """Return the quality of a message whose sender asked for one, or for none.

    2 stays what it is told to be, and is served as 1, as in agentmesh 0.4: receivers that must
    not see a message twice have its `uid`. Anything else is 1.
    """
    if qos is None:
        return usual
    return qos if qos in (AT_MOST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE) else AT_LEAST_ONCE


def transport(route: str) -> str:
    """Return how a peer is reached, in agentmesh's words, by its route: what comes first in it."""
    way = route.partition(",")[0]
    return way if way in TRANSPORTS else "poll"


def words(told: Iterable[str]) -> tuple[str, ...]:
    """Return capabilities fit to be kept: on one line, each once, at most `CAPABILITIES`."""
    clean = (one_line(each, NAME) for each in told)
    return tuple(dict.fromkeys(each for each in clean if each))[:CAPABILITIES]


def group(told: str | None) -> str | None:
    """Return a fleet's or device's name fit to be kept, None for none."""
    return one_line(told or "", NAME) or None
