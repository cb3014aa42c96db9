"""The hook that waits for mail holds no real Claude Code open, and nothing outlives its purpose."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.desk import BOUND, Desk
from support.waiting import eventually

pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]

Open = Callable[..., Desk]


@pytest.mark.parametrize("hooks", [False, True], ids=["without hooks", "with hooks"])
def test_a_headless_client_ends_by_itself_and_leaves_nothing(sit_down: Open, hooks: bool) -> None:
    desk = sit_down(hooks=hooks)
    client = desk.terminal.headless("hello")
    try:
        desk.make_pipe(client.pid)  # a waiter would wait at it for ever
        answer, _ = client.communicate(timeout=BOUND)
    finally:
        client.kill()
        client.wait()

    assert (client.returncode, answer.strip()) == (0, "?")
    eventually(lambda: not desk.terminal.left(), timeout=BOUND, what="the end of all it started")


def test_after_a_crash_of_the_server_no_waiter_stays_and_the_next_session_clears_up(
    sit_down: Open,
) -> None:
    desk = sit_down()
    client = str(desk.terminal.start())
    desk.terminal.ready()
    server = desk.peer(route="rewake")["pid"]
    eventually(lambda: len(desk.waiters()) == 1, timeout=BOUND, what="a waiter")

    os.kill(server, signal.SIGKILL)
    eventually(lambda: not desk.waiters(), timeout=BOUND, what="the end of the waiter")
    desk.terminal.kill()
    eventually(lambda: not desk.terminal.left(), timeout=BOUND, what="the end of the client")
    assert client in os.listdir(desk.wake)

    successor = str(desk.terminal.start())
    desk.terminal.ready()
    desk.peer(route="rewake")
    assert {name.partition(".")[0] for name in os.listdir(desk.wake)} == {successor}
