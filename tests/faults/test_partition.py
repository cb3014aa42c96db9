"""A session is cut off while its connection stays open: noticed, told, and healed as one peer."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from support import http
from support.fault_proxy import BLACK_HOLE, FaultProxy
from support.letters import join as register
from support.letters import send
from support.loop import until
from support.machine import Machine

from claude_peers import settings
from claude_peers.client import link
from claude_peers.client.client import Client
from claude_peers.core.errors import NoBrokerError
from claude_peers.node import node
from claude_peers.node.node import Node
from claude_peers.tools.member import Member
from claude_peers.wire import frames

pytestmark = [pytest.mark.anyio, pytest.mark.processes, pytest.mark.xdist_group("processes")]

WITHIN = 0.3
"""Seconds a request waits here."""
TRIES = 6
BOTH = 2
"""Live connections: the broker's own node's, and the one that was cut off."""


class Cut:
    """A node behind a proxy, inside this process, with less patience than real ones."""

    def __init__(self, machine: Machine, proxy: FaultProxy) -> None:
        self.machine = machine
        self.proxy = proxy
        chosen = {
            "HOME": str(machine.home),
            "CLAUDE_PEERS_DB": str(machine.database),
            "CLAUDE_PEERS_BROKER_URL": f"http://127.0.0.1:{proxy.port}",
        }
        self.client = Client(lambda: {"pid": os.getpid(), "cwd": "/", "name": "cut"})
        self.pushed: list[str] = []
        self.client.pushed = lambda message, _sender: self.pushed.append(message["text"])
        self.node = Node(settings.load(chosen), self.client)
        self.running = asyncio.ensure_future(self.node.run())

    async def call(self, operation: str, **body: Any) -> Any:
        return await self.client.call(operation, body, within=WITHIN)

    async def post(self, operation: str, **body: Any) -> Any:
        """Ask the broker by another way."""
        return await asyncio.to_thread(self.machine.post, operation, body)

    async def status(self) -> dict[str, Any]:
        return dict((await asyncio.to_thread(http.get, self.machine.port, "/status")).json())

    async def rows(self) -> list[str]:
        """Return the ids of all rows of this process, also of those that are gone."""
        known = await self.post("/list-peers", scope="machine", gone=True)
        return [str(each["id"]) for each in known if each["pid"] == os.getpid()]

    async def works(self) -> None:
        """Wait until requests are answered again."""
        with anyio.fail_after(20):
            while True:
                try:
                    await self.call("/ledger")
                except NoBrokerError:
                    await asyncio.sleep(0.01)  # between two attempts, as an agent makes a pause
                else:
                    return

    async def end(self) -> None:
        self.proxy.heal()
        await self.node.stop()
        with anyio.fail_after(10):
            await self.running


@pytest.fixture
async def cut(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cut]:
    monkeypatch.setattr(frames, "SILENCE", 1.0)
    monkeypatch.setattr(link, "HANDSHAKE", 0.3)
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.05)
    await asyncio.to_thread(machine.serve)
    with FaultProxy(machine.port) as proxy:
        made = Cut(machine, proxy)
        await until(made.client.registered.is_set)
        yield made
        await made.end()


async def lost(cut: Cut) -> None:
    """Cut it off, and wait until it has noticed."""
    cut.proxy.set(requests=BLACK_HOLE, answers=BLACK_HOLE)
    assert cut.client.connected
    await until(lambda: not cut.client.connected)


async def both(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


@pytest.mark.fault("F43")
async def test_a_half_open_connection_is_noticed_and_its_mail_kept_for_the_one_peer(cut: Cut):
    me = await cut.rows()
    cut.proxy.set(requests=BLACK_HOLE, answers=BLACK_HOLE)
    first = await both(lambda: send(cut.machine, me[0], "into the hole"))
    await until(lambda: not cut.client.connected)
    second = await both(lambda: send(cut.machine, me[0], "while nobody listens"))
    assert cut.pushed == []

    cut.proxy.reset()
    cut.proxy.heal()
    await cut.works()

    await until(lambda: len(cut.pushed) >= 2)
    assert cut.pushed == ["into the hole", "while nobody listens"]
    polled = await cut.call("/poll-messages", id=me[0], ack_supported=True)
    assert [each["id"] for each in polled["messages"]] == [first, second]
    assert await cut.rows() == me == [cut.client.peer_id]
    assert (await cut.status())["sessions"] == BOTH


@pytest.mark.fault("F43")
async def test_the_broker_lets_a_half_open_connection_go_when_its_peer_comes_back(cut: Cut):
    me = await cut.rows()
    cut.proxy.set(requests=BLACK_HOLE, answers=BLACK_HOLE)
    await until(lambda: not cut.client.connected)
    # The old connection stays open at both ends: only a new one, by another way, is carried.
    with FaultProxy(cut.machine.port) as other:
        cut.node.port.number = other.port
        await until(lambda: cut.client.connected)
        assert await cut.rows() == me
        assert (await cut.status())["sessions"] == BOTH
        assert cut.proxy.open and other.open == 1
        await both(lambda: send(cut.machine, me[0], "to the new one"))
        await until(lambda: cut.pushed == ["to the new one"])
        cut.node.port.number = cut.proxy.port


@pytest.mark.fault("F44")
async def test_who_is_cut_off_is_told_so_each_time_and_is_the_same_afterwards(cut: Cut):
    me = await cut.rows()
    bob = await both(lambda: register(cut.machine, "bob"))
    member = Member(client=cut.client, cwd="/")
    assert (await member.send(bob, "before"))["ok"]
    await lost(cut)
    failures = []
    for number in range(TRIES):
        body = {"from_id": me[0], "to_id": bob, "text": f"lost {number}", "dedupe_key": f"{number}"}
        with pytest.raises(NoBrokerError) as caught:
            await cut.call("/send-message", **body)
        failures.append(str(caught.value))
        await both(lambda n=number: send(cut.machine, me[0], f"meanwhile {n}"))  # they work on
    assert all("answer" in told or "within" in told for told in failures), failures

    cut.proxy.reset()
    cut.proxy.heal()
    await cut.works()

    await until(lambda: len(cut.pushed) >= TRIES)
    assert cut.pushed == [f"meanwhile {number}" for number in range(TRIES)]
    assert (await member.send(bob, "after"))["ok"]
    polled = (await cut.post("/poll-messages", id=bob))["messages"]
    assert [each["text"] for each in polled] == ["before", "after"]
    assert await cut.rows() == me
    ledger = await cut.post("/ledger")
    assert (ledger["accepted"], ledger["balanced"]) == (TRIES + 2, True)
