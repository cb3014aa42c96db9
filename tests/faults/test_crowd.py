"""Many at once: a thousand who poll, and one who floods; everybody else is served."""

import asyncio
import os

import pytest
from support import inproc
from support.brokers import make_broker
from support.inproc import Wire
from support.machine import Machine

from claude_peers.core.errors import RateLimitedError
from claude_peers.core.limits import Limits
from claude_peers.host import processes

PEERS = 1000
FLOOD = 2000


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the pids of the processes that are looked at from now on."""
    looked: list[int] = []
    alive, identify = processes.alive, processes.identify

    def seen_alive(process):
        looked.append(process.pid)
        return alive(process)

    def seen(pid):
        looked.append(pid)
        return identify(pid)

    monkeypatch.setattr(processes, "alive", seen_alive)
    monkeypatch.setattr(processes, "identify", seen)
    return looked


@pytest.mark.fault("F32")
def test_a_thousand_peers_poll_and_are_listed_without_a_look_at_a_process(looked_at):
    with inproc.running() as broker, Wire(broker.port) as wire:
        ids = []
        for number in range(PEERS):
            # One has a process, ours, at which each list could look.
            body = {"pid": None if number else os.getpid(), "cwd": "/", "name": f"n{number}"}
            ids.append(wire.ask("/register", body)[1]["id"])
        assert len(set(ids)) == PEERS
        for number, peer_id in enumerate(ids):
            body = {"from_id": ids[number - 1], "to_id": peer_id, "text": f"for {number}"}
            assert wire.ask("/send-message", body)[1]["ok"]
        del looked_at[:]
        got = [wire.ask("/poll-messages", {"id": peer_id})[1]["messages"] for peer_id in ids]
        assert [[each["text"] for each in mail] for mail in got] == [
            [f"for {number}"] for number in range(PEERS)
        ]
        for _ in range(5):
            assert len(wire.ask("/list-peers", {"scope": "machine"})[1]) == PEERS
        assert looked_at == []
        assert [wire.ask("/poll-messages", {"id": each})[1]["messages"] for each in ids] == (
            [[]] * PEERS
        )
        assert wire.ask("/ledger")[1]["states"]["seen"] == PEERS


@pytest.mark.anyio
@pytest.mark.fault("F26")
async def test_who_floods_is_refused_at_its_limit_and_all_others_are_served():
    rig = await make_broker(limits=Limits())
    flooder, flooding = await rig.joins_as_process(41)
    target = (await rig.join()).peer.id
    others = [await rig.joins_as_process(pid) for pid in range(50, 70)]
    refused = []

    async def flood() -> None:
        for number in range(FLOOD):
            try:
                await rig.send(target, f"flood {number}", caller=flooding, from_id=flooder)
            except RateLimitedError as error:
                refused.append(error.retry_after)

    async def speak(peer_id: str, caller) -> list[int]:
        receipts = [await rig.send(flooder, f"{n}", caller=caller, from_id=peer_id) for n in (1, 2)]
        return [receipt.message.id for receipt in receipts]

    _, *sent = await asyncio.gather(flood(), *(speak(*other) for other in others))

    burst = Limits().burst
    assert len(refused) == FLOOD - burst
    assert min(refused) > 0
    assert sorted(number for ids in sent for number in ids) == sorted(await rig.unread(flooder))
    assert len(await rig.unread(target)) == burst
    ledger = await rig.store.ledger()
    assert (ledger.accepted, ledger.balanced) == (burst + 2 * len(others), True)


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.fault("F26")
def test_a_session_that_floods_is_told_and_its_neighbours_notice_nothing(machine: Machine):
    flooder, neighbour, target = (machine.session() for _ in range(3))
    for session in (flooder, neighbour, target):
        session.list_prompts()
    to_target = machine.peer_id(target)
    assert to_target in target.call("whoami")[0]
    machine.peer_id(neighbour)
    arguments = {"to_id": to_target, "message": "flood"}
    asked = [flooder.ask_tool("send_message", **arguments) for _ in range(300)]
    quiet = [neighbour.call("send_message", to_id=to_target, message=f"calm {n}") for n in range(5)]
    told = [flooder.outcome(each) for each in asked]
    refusals = [text for text, failed in told if failed]
    assert [failed for _, failed in quiet] == [False] * 5
    assert 0 < len(refusals) < 300
    assert all("messages a minute" in text or "limit" in text for text in refusals), refusals[0]
    ledger = machine.post("/ledger")
    assert ledger["accepted"] == 300 - len(refusals) + 5
    assert ledger["balanced"]
