"""The named standby loads what a leader needs ahead of time, and hears everything meanwhile."""

import os
import threading

import anyio
import pytest
from support.loop import until

from claude_peers.core.election import Role
from claude_peers.node import leader, node

pytestmark = pytest.mark.anyio
BOUND = 10


async def test_the_leaders_modules_are_loaded_ahead_by_the_standby(join):
    first = join()
    await first.becomes(Role.LEADER)
    second = join(pid=os.getppid())
    await second.becomes(Role.FOLLOWER)

    await until(lambda: second.node._loading)
    assert await second.node._loading is leader.Office


async def test_a_standby_that_campaigns_while_it_loads_can_be_stopped(join, monkeypatch):
    began, go_on = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def load() -> type[leader.Office]:
        began.set()
        in_time.append(go_on.wait(BOUND))
        return leader.Office

    monkeypatch.setattr(node, "_leader_module", load)
    member = join()
    member.node._prepare_to_lead()
    try:
        await until(lambda: began.is_set() and member.node._loading is None)  # it campaigns
        await member.node.stop()
        assert member.roles == [Role.STOPPED]
    finally:
        go_on.set()
    with anyio.fail_after(BOUND):
        await member.running

    assert in_time == [True]  # loaded once, and nothing had to wait for it
    assert member.roles == [Role.STOPPED]
