"""The life of nodes inside this process: they lead, follow, start over and stop."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from filelock import FileLock
from support import http
from support.loop import until

from claude_peers.client.http import BrokerHttp
from claude_peers.client.link import LiveLink
from claude_peers.core import election
from claude_peers.core.election import Role
from claude_peers.core.errors import ClaudePeersError, StoreError
from claude_peers.core.models import Process
from claude_peers.host import files, leading, processes, sockets
from claude_peers.node import node
from claude_peers.node.leader import Office
from claude_peers.node.node import Node
from claude_peers.settings import Settings
from claude_peers.tools.member import Member
from claude_peers.wire.frames import SILENCE

pytestmark = pytest.mark.anyio

BOUND = 15


@asynccontextmanager
async def stranger(port: int) -> AsyncIterator[list[bytes]]:
    """Serve web pages on a port; yields what was asked for."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                heard.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield heard
    finally:
        server.close()


async def status(settings: Settings) -> dict[str, Any]:
    return dict((await asyncio.to_thread(http.get, settings.port, "/status")).json())


async def test_the_first_node_leads_and_the_second_follows(join, chosen):
    first = join()
    await first.becomes(Role.LEADER)
    second = join()
    await second.becomes(Role.FOLLOWER)

    assert len(await second.ask("/list-peers", scope="machine")) == 2
    assert (await status(chosen))["epoch"] == 1


async def test_a_follower_leads_when_the_leader_stops(join, chosen):
    first, second = join(), None
    await first.becomes(Role.LEADER)
    second = join()
    await second.becomes(Role.FOLLOWER)
    peer_id = second.client.peer_id

    await first.end()
    await second.becomes(Role.LEADER)
    await second.ask("/list-peers", scope="machine")

    assert first.roles[-1] is Role.STOPPED
    assert second.client.peer_id == peer_id
    assert (await status(chosen))["epoch"] == 2


async def test_a_node_without_an_agent_takes_part(join, chosen):
    first = join(agent=False)
    await first.becomes(Role.LEADER)
    second = join(agent=False)
    await second.becomes(Role.FOLLOWER)

    assert (await status(chosen))["peers"] == 0
    await first.end()
    await second.becomes(Role.LEADER)


async def test_a_stranger_on_the_port_is_left_alone_and_named(join, chosen, state, monkeypatch):
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.01)
    async with stranger(chosen.port) as heard:
        member = join()
        problem = await member.trouble()

        with pytest.raises(ClaudePeersError, match="stranger"):
            await member.ask("/list-peers", scope="machine")
        assert f"(pid {os.getpid()})" in str(problem)
        assert "CLAUDE_PEERS_PORT" in problem.remedy
        assert member.node.role is Role.CANDIDATE

    await member.becomes(Role.LEADER)
    secret = (state / "secret").read_bytes()
    assert {request.split()[1] for request in heard} == {b"/live", b"/health"}
    assert not any(secret in request or b"authorization" in request.lower() for request in heard)
    assert await member.ask("/list-peers", scope="machine")
    assert member.node.problem is None


async def test_nobody_leads_beside_the_holder_of_the_lock(join, chosen, database, monkeypatch):
    looked = asyncio.Event()
    is_locked = files.is_locked

    def look(path: str) -> bool:
        looked.set()
        return is_locked(path)

    files.private_folder(chosen.state_folder)
    with FileLock(os.path.join(chosen.state_folder, "broker.lock"), thread_local=False):
        monkeypatch.setattr(files, "is_locked", look)
        member = join()
        with anyio.fail_after(BOUND):
            await looked.wait()
        assert sockets.listener_pids(chosen.port) == []
        assert not database.exists()

    await member.becomes(Role.LEADER)


async def test_a_leader_that_loses_its_own_connection_goes_on_leading(join, chosen):
    member = join()
    await member.becomes(Role.LEADER)
    before = await member.ask("/list-peers", scope="machine")

    member.node._office._server.sessions[0].transport.abort()

    assert [peer["id"] for peer in await member.ask("/list-peers", scope="machine")] == [
        peer["id"] for peer in before
    ]
    assert (await status(chosen))["epoch"] == 1
    assert member.node.role is Role.LEADER


async def test_a_leader_that_is_stuck_and_alone_leads_again(join, chosen, monkeypatch):
    monkeypatch.setattr(node, "AFTER_OFFICE", 0.01)
    member = join()
    await member.becomes(Role.LEADER)
    await member.ask("/list-peers", scope="machine")
    biting = threading.Thread(target=member.node._office._stuck)
    biting.start()
    biting.join(BOUND)

    await member.becomes(Role.CANDIDATE)
    await member.becomes(Role.LEADER)

    await member.ask("/list-peers", scope="machine")
    assert (await status(chosen))["epoch"] == 2


async def test_an_office_that_ends_while_its_node_is_cut_off_is_left(join, chosen, monkeypatch):
    monkeypatch.setattr(node, "AFTER_OFFICE", 0.01)
    member = join()
    await member.becomes(Role.LEADER)
    await member.ask("/list-peers", scope="machine")
    office = member.node._office
    reach, gate = member.node.port.reach, asyncio.Event()

    async def reach_later(secret: bytes) -> Any:
        await gate.wait()
        return await reach(secret)

    monkeypatch.setattr(member.node.port, "reach", reach_later)
    office._server.sessions[0].transport.abort()
    await until(lambda: not member.client.connected)
    office._step_down(0.0)
    gate.set()

    await member.becomes(Role.CANDIDATE)
    await member.becomes(Role.LEADER)
    assert member.node._office is not office


@pytest.mark.fault("F45")
async def test_a_message_whose_leader_dies_before_it_answers_is_stored_once(join):
    first = join()
    await first.becomes(Role.LEADER)
    sender = join()
    await sender.becomes(Role.FOLLOWER)
    office = first.node._office
    store = office._server.app.broker.store
    accept, accepted = store.accept, []

    async def accept_and_die(*given: Any, **named: Any) -> Any:
        accepted.append(await accept(*given, **named))
        office._stuck()  # nothing goes out any more, and everything is free
        await asyncio.Event().wait()

    store.accept = accept_and_die
    with anyio.fail_after(BOUND):
        tools = Member(client=sender.client, cwd="/")
        answer = await tools.send(sender.client.peer_id, "only once", reply_to=None)

    assert answer["duplicate"] is True
    assert [receipt.message.id for receipt in accepted] == [answer["message_id"]]
    ledger = await sender.ask("/ledger")
    assert (ledger["accepted"], ledger["balanced"]) == (1, True)


async def test_a_node_that_is_stopped_while_it_campaigns_leads_nothing(join, chosen, monkeypatch):
    taking, gate = asyncio.Event(), asyncio.Event()
    take = Office.take

    async def slowly(self: Office) -> bool:
        taken = await take(self)
        taking.set()
        await gate.wait()
        return taken

    monkeypatch.setattr(Office, "take", slowly)
    member = join()
    with anyio.fail_after(BOUND):
        await taking.wait()

    await member.node.stop()
    gate.set()
    await member.end()

    assert member.node.role is Role.STOPPED
    assert Role.LEADER not in member.roles
    assert not files.is_locked(os.path.join(chosen.state_folder, "broker.lock"))
    assert sockets.listener_pids(chosen.port) == []


async def test_a_node_that_is_stopped_while_it_hands_over_finishes_that(join, chosen, monkeypatch):
    member = join()
    await member.becomes(Role.LEADER)
    office = member.node._office
    closing, gate = asyncio.Event(), asyncio.Event()
    close = office._stack.aclose

    async def slowly() -> None:
        closing.set()
        await gate.wait()
        await close()

    monkeypatch.setattr(office._stack, "aclose", slowly)
    office._step_down(0.0)
    with anyio.fail_after(BOUND):
        await closing.wait()
    stopping = asyncio.ensure_future(member.node.stop())
    await asyncio.sleep(0)
    assert not stopping.done()

    gate.set()
    await stopping

    assert office.ended.result() == "asked to step down"
    assert not files.is_locked(os.path.join(chosen.state_folder, "broker.lock"))


async def test_a_bug_is_logged_and_not_the_end_of_the_node(join, monkeypatch, caplog):
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.01)
    bugs = [ZeroDivisionError("a bug")]
    held_back = leading.is_held_back

    def look(folder: str, *, now: float) -> bool:
        if bugs:
            raise bugs.pop()
        return held_back(folder, now=now)

    monkeypatch.setattr(leading, "is_held_back", look)
    member = join()

    await member.becomes(Role.LEADER)

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        ZeroDivisionError
    ]


async def test_a_damaged_database_is_explained_until_it_is_moved(join, database, monkeypatch):
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.01)
    database.write_bytes(b"garbage" * 1000)
    member = join()

    problem = await member.trouble()
    with pytest.raises(StoreError, match="claude-peers salvage"):
        await member.ask("/list-peers", scope="machine")
    database.unlink()

    assert isinstance(problem, StoreError)
    await member.becomes(Role.LEADER)


@pytest.mark.fault("F18")
async def test_a_home_that_cannot_be_written_is_explained(join, state, monkeypatch):
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.01)
    state.write_text("in the way")
    member = join()

    problem = await member.trouble()
    state.unlink()

    assert str(state) in problem.fact
    await member.becomes(Role.LEADER)


async def test_a_client_of_a_given_broker_never_campaigns(join, choose, database):
    settings = choose(CLAUDE_PEERS_BROKER_URL="http://127.0.0.1:9")
    member = join(settings)

    assert await member.node._campaign() is False
    assert not database.exists()


class Wire:
    """The transport of a connection whose other end says nothing."""

    def __init__(self) -> None:
        self.closed = False

    def abort(self) -> None:
        self.closed = True


async def quiet_link(seconds: float) -> tuple[LiveLink, Wire]:
    link, wire = LiveLink(), Wire()
    vars(link).update(_transport=wire, heard=time.monotonic() - seconds)
    link.leader = Process(pid=77, started="then")
    return link, wire


@pytest.mark.parametrize(
    ("seconds", "stopped", "woken", "closed"),
    [(1, True, 0, False), (7, False, 0, False), (7, True, 1, False), (19, False, 0, True)],
)
async def test_a_silent_leader_is_woken_if_it_is_stopped_and_left_if_it_hangs(
    chosen, monkeypatch, seconds, stopped, woken, closed
):
    revived: list[Process] = []
    monkeypatch.setattr(processes, "is_stopped", lambda pid: stopped)
    monkeypatch.setattr(processes, "revive", revived.append)
    link, wire = await quiet_link(seconds)

    assert 0 < Node(chosen)._look_at(link) <= SILENCE

    assert revived == [Process(pid=77, started="then")] * woken
    assert wire.closed is closed


async def test_a_broker_that_answers_after_the_end_is_not_joined(join, chosen, monkeypatch):
    leader_of_all = join()
    await leader_of_all.becomes(Role.LEADER)
    late = join()
    reach = late.node.port.reach

    async def reach_late(secret: bytes) -> Any:
        link = await reach(secret)
        await late.node.stop()
        return link

    monkeypatch.setattr(late.node.port, "reach", reach_late)
    await late.end()

    assert late.roles == [Role.STOPPED]
    assert late.client.peer_id == ""


# Stepping down


def step_down(settings: Settings, hold: float) -> None:
    http_way = BrokerHttp(
        settings.port,
        secret=files.secret(settings.state_folder),
        trust_listener=False,
        listener_uid=sockets.listener_uid,
        own_uid=processes.user_id(),
    )
    with http_way as broker:
        body = {"hold_ms": round(hold * 1000)}
        assert broker.post("/admin/step-down", body, authenticate=True)[0] == 200


async def test_a_leader_that_is_asked_to_step_down_makes_room_for_the_other(join, chosen):
    first = join()
    await first.becomes(Role.LEADER)
    second = join()
    await second.becomes(Role.FOLLOWER)

    await asyncio.to_thread(step_down, chosen, 0.0)

    await second.becomes(Role.LEADER)
    await first.becomes(Role.FOLLOWER)


async def test_a_leader_that_is_alone_leads_again(join, chosen, monkeypatch):
    monkeypatch.setattr(node, "AFTER_OFFICE", 0.01)
    member = join()
    await member.becomes(Role.LEADER)

    await asyncio.to_thread(step_down, chosen, 0.0)

    await member.becomes(Role.CANDIDATE)
    await member.becomes(Role.LEADER)


async def test_nobody_leads_while_all_are_held_back(join, chosen, state):
    first = join()
    await first.becomes(Role.LEADER)
    second = join()
    await second.becomes(Role.FOLLOWER)

    await asyncio.to_thread(step_down, chosen, 1.5)

    await first.becomes(Role.CANDIDATE)
    held = float((state / "hold").read_bytes())
    leaders = [asyncio.ensure_future(each.becomes(Role.LEADER)) for each in (first, second)]
    await asyncio.wait(leaders, return_when=asyncio.FIRST_COMPLETED)
    assert time.time() >= held
    for each in leaders:
        each.cancel()


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (lambda now: f"{now + 60}", True),
        (lambda now: f"{now - 1}", False),
        (lambda now: f"{now + 10 * leading.LONGEST_HOLD}", False),
        (lambda _: "inf", False),
        (lambda _: "nan", False),
        (lambda _: "soon", False),
    ],
)
async def test_only_a_sensible_hold_counts(chosen, content, held):
    files.private_folder(chosen.state_folder)
    text = content(time.time()).encode()
    files.write_private(os.path.join(chosen.state_folder, "hold"), text)

    assert leading.is_held_back(chosen.state_folder, now=time.time()) is held


async def test_a_hold_that_cannot_be_recorded_does_not_keep_the_leader(
    join, chosen, monkeypatch, caplog
):
    monkeypatch.setattr(node, "AFTER_OFFICE", 0.01)
    member = join()
    await member.becomes(Role.LEADER)

    def full(path: str, data: bytes) -> None:
        raise StoreError("The disk is full", "Free some space.")

    monkeypatch.setattr(files, "write_private", full)
    await asyncio.to_thread(step_down, chosen, 60.0)

    await member.becomes(Role.CANDIDATE)
    await member.becomes(Role.LEADER)
    assert "nobody is kept from leading" in caplog.text


async def test_an_idle_follower_keeps_out_of_a_take_over_until_its_agent_wants_something(
    join, monkeypatch
):
    monkeypatch.setattr(election, "FIRST_LOOK", (3600.0, 0.0))
    first = join()
    await first.becomes(Role.LEADER)
    second = join(pid=os.getppid())
    await second.becomes(Role.FOLLOWER)
    await until(lambda: second.node._standby)
    idle = join(pid=os.getppid())
    await idle.becomes(Role.FOLLOWER)
    await idle.ask("/list-peers", scope="machine")
    looks: list[bytes] = []
    reach = idle.node.port.reach
    vars(idle.node.port)["reach"] = lambda secret: looks.append(secret) or reach(secret)

    await first.end()
    await second.becomes(Role.LEADER)
    await idle.becomes(Role.CANDIDATE)
    assert looks == []

    await idle.ask("/list-peers", scope="machine")
    assert len(looks) == 1
