"""Real Claude Code in a terminal is woken by the hook that waits on a session's pipe."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.terminal import Terminal
from support.waiting import eventually

from claude_peers.session.routes.rewake import Rewake
from claude_peers.wire import hooks

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
BOUND = 60
"""Seconds for what takes a real client less than one."""
LONG = "THIRD-MAIL " + "x" * 29_000


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    every_version = hooks.settings(str(terminal.root), hooks.SERVER, None)
    terminal.configure(every_version)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def routes() -> Iterator[list[Rewake]]:
    opened: list[Rewake] = []
    yield opened
    for route in opened:
        route.close()


def open_route(terminal: Terminal, pid: int, routes: list[Rewake]) -> Rewake:
    """Return the route as the session's server has it."""
    route = Rewake(str(terminal.root / "wake"), pid)
    routes.append(route)
    route.open()
    return route


def wake(terminal: Terminal, route: Rewake, text: str) -> None:
    eventually(lambda: route.available, timeout=BOUND, what=f"a waiter for {text!r}")
    assert asyncio.run(route.push(text))
    eventually(lambda: terminal.shown(text), timeout=BOUND, what=f"a request with {text!r}")


def test_an_idle_session_wakes_each_time_and_is_armed_anew(
    terminal: Terminal, routes: list[Rewake]
) -> None:
    route = open_route(terminal, terminal.start(), routes)
    terminal.ready()

    wake(terminal, route, "FIRST-MAIL before the first turn")
    wake(terminal, route, "SECOND-MAIL with an answer\nin two lines")
    terminal.type("the user goes on")
    eventually(lambda: terminal.shown("the user goes on"), timeout=BOUND)
    wake(terminal, route, LONG)

    texts = ("FIRST-MAIL", "SECOND-MAIL with an answer\nin two lines", LONG)
    assert [terminal.shown(text) for text in texts] == [1, 1, 1]
    eventually(lambda: route.available, timeout=BOUND)


def test_a_headless_client_is_not_held_open(terminal: Terminal, routes: list[Rewake]) -> None:
    client = terminal.headless("hello")
    try:
        route = open_route(terminal, client.pid, routes)

        answer, _ = client.communicate(timeout=BOUND)
    finally:
        client.kill()
        client.wait()

    assert (client.returncode, answer.strip()) == (0, "?")
    assert not route.available
    eventually(lambda: not terminal.left(), timeout=BOUND)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_after_a_crash_of_the_client_no_waiter_is_left(
    terminal: Terminal, routes: list[Rewake]
) -> None:
    route = open_route(terminal, terminal.start(), routes)
    eventually(lambda: route.available, timeout=BOUND)

    terminal.kill()
    eventually(lambda: terminal.pid not in terminal.left())
    route.close()

    eventually(lambda: not terminal.left(), timeout=BOUND)
    assert list((terminal.root / "wake").iterdir()) == []
