"""When a session begins to count: a health check must leave no peer behind.

Clients start every configured server to see whether it answers (`claude mcp list`), and keep it
alive as long as the slowest of them takes. What tells a session from a check, by measurement:
sessions of Claude Code, Gemini and Qwen ask for prompts and checks do not; others never ask, but
their checks run under a `mcp list` command line and are soon over.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise

ASKS_FOR_PROMPTS = ("claude-code", "gemini-cli-mcp-client", "qwen-code", "mcp-test-client")
LISTED_FOR = 0.100
"""Seconds after tools/list, for clients that never ask for prompts."""
INITIALIZED_FOR = 0.300
"""Seconds after initialized, for clients that ask for nothing at all."""
LOOK_EVERY = 0.010
LOOKS = 30
ALIVE_FOR = 60.0
"""Seconds after which everybody counts: longer than any client waits for its slowest server."""
_VERBS = {"list", "ls", "get", "test", "status", "doctor", "check", "inspect"}
_WORDS = 10


def is_check(command_lines: Sequence[Sequence[str]]) -> bool:
    """Whether one of the command lines is a health check: `mcp` and one of its verbs."""
    for words in command_lines:
        first = list(words[:_WORDS])
        if any(a == "mcp" and b in _VERBS for a, b in pairwise(first)):
            return True
    return False


class Presence:
    """Calls `begin` once, at the first sign of a real session.

    Args:
        begin: what starts then.
        client: the client's name, known from `initialize` on.
        matched: whether a record or socket of a running session names an ancestor of ours.
        command_lines: those of parent and grandparent.
    """

    def __init__(
        self,
        begin: Callable[[], None],
        *,
        client: Callable[[], str],
        matched: Callable[[], bool],
        command_lines: Callable[[], list[list[str]]],
    ) -> None:
        self.begun = False
        self._begin = begin
        self._client = client
        self._matched = matched
        self._command_lines = command_lines
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []

    def event(self, what: str) -> None:
        """Take a sign: initialized, tools/list, prompts/list or tools/call."""
        if self.begun:
            return
        if what in ("prompts/list", "tools/call"):
            self._now()
        elif what == "tools/list":
            self._unless_check(LISTED_FOR)
        elif what == "initialized":
            self._later(ALIVE_FOR, self._now)
            if self._client() in ASKS_FOR_PROMPTS:
                self._look(LOOKS)
            else:
                self._unless_check(INITIALIZED_FOR)

    def stop(self) -> None:
        """Wait for nothing any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _unless_check(self, seconds: float) -> None:
        if self._client() not in ASKS_FOR_PROMPTS:
            self._later(seconds, self._now_unless_check)

    def _now_unless_check(self) -> None:
        if not is_check(self._command_lines()):
            self._now()

    def _look(self, looks: int) -> None:
        # Not a check that was started from within a session: that one is an ancestor, too.
        if self._matched() and not is_check(self._command_lines()):
            self._now()
        elif looks:
            self._later(LOOK_EVERY, lambda: self._look(looks - 1))

    def _now(self) -> None:
        if not self.begun:
            self.begun = True
            self.stop()
            self._begin()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        if not self.begun:
            self._timers.append(self._loop.call_later(seconds, what))
