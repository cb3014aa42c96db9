"""The life of nodes inside this process: they lead, follow, start over and stop."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from filelock import FileLock
from support import http

from claude_peers.client.client import Client
from claude_peers.client.http import BrokerHttp
from claude_peers.core.election import Role
from claude_peers.core.errors import ClaudePeersError, StoreError
from claude_peers.host import files, processes, sockets
from claude_peers.node import leader, node
from claude_peers.node.leader import Office
from claude_peers.node.node import LONGEST_HOLD, Node
from claude_peers.settings import Settings

pytestmark = pytest.mark.anyio

BOUND = 15


class Member:
    """A node, its client, and the roles it had."""

    def __init__(self, settings: Settings, *, agent: bool = True, pid: int = 0) -> None:
        self.client = Client(lambda: registration(settings, pid)) if agent else None
        self.node = Node(settings, self.client)
        self.roles: list[Role] = []
        self._changed = asyncio.Event()
        self.node.changed = self._note
        self.running = asyncio.ensure_future(self.node.run())

    async def becomes(self, role: Role) -> None:
        """Wait for a role that has not been waited for."""
        with anyio.fail_after(BOUND):
            while role not in self.roles:
                self._changed.clear()
                await self._changed.wait()
        del self.roles[: self.roles.index(role) + 1]

    async def ask(self, operation: str, **body: Any) -> Any:
        assert self.client is not None
        return await self.client.call(operation, body)

    async def trouble(self) -> ClaudePeersError:
        """Wait until the node says why it has no broker."""
        with anyio.fail_after(BOUND):
            while self.node.problem is None:
                await asyncio.sleep(0)
        return self.node.problem

    async def end(self) -> None:
        if self.node.role is not Role.STOPPED:
            await self.node.stop()
        with anyio.fail_after(BOUND):
            await self.running

    def _note(self, role: Role) -> None:
        self.roles.append(role)
        self._changed.set()


def registration(settings: Settings, pid: int) -> dict[str, Any]:
    return {"pid": pid or os.getpid(), "cwd": os.path.dirname(settings.database_path), "name": "x"}


@pytest.fixture
async def join(chosen: Settings) -> AsyncIterator[Callable[..., Member]]:
    """Return a way to make members; all are stopped at the end."""
    made: list[Member] = []

    def make(settings: Settings = chosen, **given: Any) -> Member:
        made.append(Member(settings, **given))
        return made[-1]

    yield make
    for each in made:
        await each.end()


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


async def test_a_stranger_on_the_port_is_left_alone_and_named(join, chosen, monkeypatch):
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
    secret = Path(chosen.state_folder, "secret").read_bytes()
    assert {request.split()[1] for request in heard} == {b"/live", b"/health"}
    assert not any(secret in request or b"authorization" in request.lower() for request in heard)
    assert await member.ask("/list-peers", scope="machine")
    assert member.node.problem is None


async def test_nobody_leads_beside_the_holder_of_the_lock(join, chosen, monkeypatch):
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
        assert not os.path.exists(chosen.database_path)

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
    with anyio.fail_after(BOUND):
        while member.client.connected:
            await asyncio.sleep(0)
    office._step_down(0.0)
    gate.set()

    await member.becomes(Role.CANDIDATE)
    await member.becomes(Role.LEADER)
    assert member.node._office is not office


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
    held_back = Node._held_back

    def look(self: Node) -> bool:
        if bugs:
            raise bugs.pop()
        return held_back(self)

    monkeypatch.setattr(Node, "_held_back", look)
    member = join()

    await member.becomes(Role.LEADER)

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        ZeroDivisionError
    ]


async def test_a_damaged_database_is_explained_until_it_is_moved(join, chosen, monkeypatch):
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.01)
    await asyncio.to_thread(Path(chosen.database_path).write_bytes, b"garbage" * 1000)
    member = join()

    problem = await member.trouble()
    with pytest.raises(StoreError, match="Move the file away"):
        await member.ask("/list-peers", scope="machine")
    os.unlink(chosen.database_path)

    assert isinstance(problem, StoreError)
    await member.becomes(Role.LEADER)


async def test_a_home_that_cannot_be_written_is_explained(join, chosen, monkeypatch):
    monkeypatch.setattr(node, "STRANGER_EVERY", 0.01)
    Path(chosen.state_folder).write_text("in the way")
    member = join()

    problem = await member.trouble()
    os.unlink(chosen.state_folder)

    assert chosen.state_folder in problem.fact
    await member.becomes(Role.LEADER)


async def test_a_client_of_a_given_broker_never_campaigns(join, choose, monkeypatch):
    settings = choose(CLAUDE_PEERS_BROKER_URL="http://127.0.0.1:9")
    member = join(settings)

    assert await member.node._campaign() is False
    assert not os.path.exists(settings.database_path)


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


async def test_nobody_leads_while_all_are_held_back(join, chosen):
    first = join()
    await first.becomes(Role.LEADER)
    second = join()
    await second.becomes(Role.FOLLOWER)

    await asyncio.to_thread(step_down, chosen, 1.5)

    await first.becomes(Role.CANDIDATE)
    until = float(Path(chosen.state_folder, "hold").read_bytes())
    leaders = [asyncio.ensure_future(each.becomes(Role.LEADER)) for each in (first, second)]
    await asyncio.wait(leaders, return_when=asyncio.FIRST_COMPLETED)
    assert time.time() >= until
    for each in leaders:
        each.cancel()


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (lambda now: f"{now + 60}", True),
        (lambda now: f"{now - 1}", False),
        (lambda now: f"{now + 10 * LONGEST_HOLD}", False),
        (lambda _: "inf", False),
        (lambda _: "nan", False),
        (lambda _: "soon", False),
    ],
)
async def test_only_a_sensible_hold_counts(chosen, content, held):
    files.private_folder(chosen.state_folder)
    text = content(time.time()).encode()
    files.write_private(os.path.join(chosen.state_folder, "hold"), text)

    assert Node(chosen)._held_back() is held


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


async def test_the_leaders_modules_are_loaded_ahead_by_the_standby(join, chosen):
    first = join()
    await first.becomes(Role.LEADER)
    second = join(pid=os.getppid())
    await second.becomes(Role.FOLLOWER)

    with anyio.fail_after(BOUND):
        while second.node._loading is None:
            await asyncio.sleep(0)
        assert await second.node._loading is leader.Office
