"""When a client counts as a session, by a clock that is moved by hand."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import pytest

from claude_peers.session import presence
from claude_peers.session.presence import (
    ALIVE_FOR,
    INITIALIZED_FOR,
    LISTED_FOR,
    LOOK_EVERY,
    LOOKS,
    Presence,
    is_check,
)


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Clock:
    """The part of an event loop that tells time, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Timer]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._due, (self.now + seconds, len(self._due), timer))
        return timer

    def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._due)
            if timer.call is not None:
                timer.call()
        self.now = end

    @property
    def waiting(self) -> int:
        return sum(timer.call is not None for _, _, timer in self._due)


class Watched:
    """A Presence and what it sees."""

    def __init__(self, clock: Clock, client: str) -> None:
        self.clock = clock
        self.begun = 0
        self.looks = 0
        self.matched = False
        self.command_lines: list[list[str]] = [["x", "run"], ["sh"]]
        self.presence = Presence(
            self._begin,
            client=lambda: client,
            matched=self._look,
            command_lines=lambda: self.command_lines,
        )

    def after(self, seconds: float, *events: str) -> int:
        for event in events:
            self.presence.event(event)
        self.clock.pass_by(seconds)
        return self.begun

    def _begin(self) -> None:
        self.begun += 1

    def _look(self) -> bool:
        self.looks += 1
        return self.matched


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Watched]:
    clock: Any = Clock()
    monkeypatch.setattr(presence.asyncio, "get_running_loop", lambda: clock)
    return lambda client: Watched(clock, client)


@pytest.mark.parametrize("client", ["claude-code", "codex", "mcp-test-client", ""])
@pytest.mark.parametrize("event", ["prompts/list", "tools/call"])
def test_prompts_and_calls_count_at_once_whoever_asks(watch, client, event):
    seen = watch(client)

    assert seen.after(0, "initialized", event) == 1


def test_a_session_begins_once(watch):
    seen = watch("codex")

    seen.after(0, "initialized", "prompts/list", "tools/call", "tools/list", "initialized")

    assert seen.after(2 * ALIVE_FOR) == 1
    assert seen.clock.waiting == 0


@pytest.mark.parametrize("client", presence.ASKS_FOR_PROMPTS)
def test_a_client_that_would_ask_for_prompts_and_does_not_is_a_check(watch, client):
    seen = watch(client)

    assert seen.after(ALIVE_FOR - 0.01, "initialized", "tools/list") == 0
    assert seen.after(0.01) == 1


def test_other_clients_count_a_moment_after_they_listed_the_tools(watch):
    seen = watch("codex-mcp-client")

    assert seen.after(LISTED_FOR - 0.001, "initialized", "tools/list") == 0
    assert seen.after(0.001) == 1


def test_other_clients_count_without_asking_for_anything(watch):
    seen = watch("a bench")

    assert seen.after(INITIALIZED_FOR - 0.001, "initialized") == 0
    assert seen.after(0.001) == 1


def test_a_client_that_only_said_hello_does_not_count_before_initialized(watch):
    assert watch("codex").after(10 * ALIVE_FOR) == 0


def test_other_clients_checks_are_known_by_their_command_line(watch):
    seen = watch("opencode")
    seen.command_lines = [["node", "opencode", "mcp", "list"], ["bash"]]

    assert seen.after(ALIVE_FOR - 0.01, "initialized", "tools/list") == 0
    assert seen.after(0.01) == 1


def test_a_record_of_the_session_is_looked_for_a_while(watch):
    seen = watch("claude-code")

    assert seen.after(LOOK_EVERY * 3.5, "initialized") == 0
    seen.matched = True
    assert seen.after(LOOK_EVERY) == 1


def test_the_search_for_a_record_ends(watch):
    seen = watch("claude-code")

    seen.after(LOOK_EVERY * LOOKS * 4, "initialized")

    assert seen.looks == LOOKS + 1
    seen.matched = True
    assert seen.after(1) == 0


def test_a_check_within_a_session_does_not_count_by_that_sessions_record(watch):
    seen = watch("claude-code")
    seen.matched = True
    seen.command_lines = [["claude", "mcp", "list"], ["bash"]]

    assert seen.after(ALIVE_FOR - 1, "initialized") == 0


def test_records_are_not_looked_for_on_behalf_of_other_clients(watch):
    seen = watch("codex")
    seen.matched = True

    seen.after(ALIVE_FOR, "initialized")

    assert seen.looks == 0


def test_nothing_begins_after_the_end(watch):
    seen = watch("codex")
    seen.after(0, "initialized", "tools/list")

    seen.presence.stop()

    assert seen.after(2 * ALIVE_FOR) == 0


def test_an_unknown_event_is_no_sign(watch):
    assert watch("codex").after(ALIVE_FOR, "ping") == 0


@pytest.mark.parametrize(
    ("lines", "check"),
    [
        ([["claude", "mcp", "list"]], True),
        ([["node", "/x/cli.js", "mcp", "get", "claude-peers"]], True),
        ([["sh", "-c", "server"], ["x", "--debug", "mcp", "doctor"]], True),
        ([["x", "mcp"]], False),
        ([["x", "mcp", "serve"]], False),
        ([["x", "list", "mcp"]], False),
        ([["x", "mcp", "--json", "list"]], False),
        ([["x", "-p", "what does mcp list do?"]], False),
        ([[*"abcdefghi", "mcp", "list"]], False),
        ([[], []], False),
        ([], False),
    ],
)
def test_a_check_is_told_by_mcp_and_its_verb_side_by_side(lines, check):
    assert is_check(lines) is check


@pytest.mark.anyio
async def test_a_real_loop_keeps_time():
    begun = asyncio.Event()
    seen = Presence(begun.set, client=lambda: "x", matched=lambda: False, command_lines=list)

    seen.event("initialized")
    seen.event("tools/list")

    async with asyncio.timeout(10):
        await begun.wait()
    assert seen.begun
