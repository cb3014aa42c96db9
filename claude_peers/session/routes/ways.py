"""How a session's agent can be reached at the moment, and what it is doing."""

from dataclasses import dataclass, field
from typing import Protocol

from claude_peers.session.routes.route import Route


class Activity(Protocol):
    """What the agent is doing, as far as somebody can tell."""

    @property
    def state(self) -> str:
        """`idle`, `busy`, or "" where nobody can tell."""
        ...

    @property
    def idle_since(self) -> float | None:
        """Since when it has been idle, in seconds since the epoch."""
        ...


class NoActivity:
    """Nobody can tell."""

    state = ""
    idle_since: float | None = None


@dataclass(slots=True, kw_only=True)
class Ways:
    """How this session's agent can be reached.

    Attributes:
        routes: those that push whole texts, best first.
        channel: whether the channel is proven.
        courtesy: whether unproven notifications are sent.
        hooks: whether the client's hooks have been heard of.
        activity: what the agent is doing.
    """

    routes: list[Route] = field(default_factory=list)
    channel: bool = False
    courtesy: bool = True
    hooks: bool = False
    activity: Activity = field(default_factory=NoActivity)

    @property
    def name(self) -> str:
        """The route as the roster shows it, "" if the agent must ask for its messages."""
        for route in self.routes:
            if route.available:
                return route.name
        if self.channel:
            return "channel"
        return "hook" if self.hooks else ""
