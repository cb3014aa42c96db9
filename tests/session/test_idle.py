"""A route for the idle is not used in the middle of a turn."""

import pytest

from claude_peers.session.routes.idle import WhenIdle
from claude_peers.session.routes.route import Route
from claude_peers.session.routes.ways import NoActivity

pytestmark = pytest.mark.anyio


class Known(NoActivity):
    """What the agent is doing is as the test says."""


class Open:
    """A route that takes everything while it is open."""

    name = "open"

    def __init__(self) -> None:
        self.available = True
        self.texts: list[str] = []

    async def push(self, text: str) -> bool:
        self.texts.append(text)
        return True

    def close(self) -> None:
        self.available = False


@pytest.mark.parametrize(("state", "pushed"), [("idle", True), ("", True), ("busy", False)])
async def test_a_text_goes_to_an_agent_that_is_not_known_to_be_busy(state, pushed):
    inner, activity = Open(), Known()
    route: Route = WhenIdle(inner, activity)
    activity.state = state

    assert route.available == pushed
    assert await route.push("hello") == pushed
    assert inner.texts == ["hello"] * pushed


def test_it_is_called_as_the_route_it_keeps_and_closes_it():
    inner = Open()
    route = WhenIdle(inner, Known())

    route.close()

    assert route.name == "open"
    assert not inner.available
    assert not route.available
