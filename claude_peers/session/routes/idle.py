"""A route that is kept for an agent that is not at work.

What is pushed into the middle of a turn is shown when the tool that runs has ended. If that tool is
our own `check_messages`, the agent is told that the message was pushed to it, and then gets it: it
reads it twice. An agent at work is reached by hooks and by what it calls; the push is for after.
"""

from claude_peers.session.routes.route import Route
from claude_peers.session.routes.ways import Activity


class WhenIdle:
    """A route, as long as nobody can tell that its agent is busy.

    Args:
        route: how the text travels.
        activity: what the agent is doing.
    """

    def __init__(self, route: Route, activity: Activity) -> None:
        self._route = route
        self._activity = activity

    @property
    def name(self) -> str:
        """See `Route`."""
        return self._route.name

    @property
    def available(self) -> bool:
        """See `Route`."""
        return self._activity.state != "busy" and self._route.available

    async def push(self, text: str) -> bool:
        """See `Route`."""
        return self.available and await self._route.push(text)

    def close(self) -> None:
        """See `Route`."""
        self._route.close()
