"""What a leader holds, and how it lets go: lock, database, port and epoch."""

import asyncio
import errno
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from filelock import FileLock
from support import http

from claude_peers.core.errors import StoreError
from claude_peers.host import files, processes, sockets
from claude_peers.node import leader
from claude_peers.node.leader import Office
from claude_peers.settings import Settings
from claude_peers.wire import frames

pytestmark = pytest.mark.anyio

BOUND = 10
Make = Callable[..., Office]


@pytest.fixture
async def office(chosen: Settings) -> AsyncIterator[Make]:
    """Return a way to make offices; all are given up at the end."""
    made: list[Office] = []

    def make(port: int | None = None) -> Office:
        files.private_folder(chosen.state_folder)
        secret = files.secret(chosen.state_folder)
        made.append(Office(chosen, port=port or chosen.port, secret=secret))
        return made[-1]

    yield make
    for each in made:
        await each.give_up()


@pytest.fixture
def lock(chosen: Settings) -> Path:
    files.private_folder(chosen.state_folder)
    return Path(chosen.state_folder) / "broker.lock"


async def post(port: int, path: str, body: Any = None) -> http.Response:
    return await asyncio.to_thread(http.post, port, path, body)


async def test_a_leader_counts_its_epoch_and_serves(office, chosen):
    first = office()
    assert await first.take()
    health = (await asyncio.to_thread(http.get, chosen.port, "/status")).json()
    await first.give_up()
    second = office()
    assert await second.take()

    assert (health["epoch"], health["pid"], health["standby"]) == (1, os.getpid(), None)
    assert (first.epoch, second.epoch) == (1, 2)


@pytest.mark.bug("U23")
async def test_nobody_leads_while_another_holds_the_lock(office, lock, database, chosen):
    with FileLock(lock, thread_local=False):
        assert not await office().take()
        assert sockets.listener_pids(chosen.port) == []
        assert not database.exists()
    assert await office().take()


@pytest.mark.bug("U23")
@pytest.mark.fault("F12")
async def test_whoever_cannot_bind_the_port_frees_everything(office, chosen, lock):
    stranger = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", chosen.port)
    async with stranger:
        loser = office()
        assert not await loser.take()
        assert loser.ended.done()
        assert not files.is_locked(str(lock))
    await stranger.wait_closed()

    winner = office()
    assert await winner.take()
    assert winner.epoch == 1  # the loser never took office


@pytest.mark.fault("F14")
async def test_a_folder_that_cannot_be_locked_is_refused_with_the_remedy(office, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)

    with pytest.raises(StoreError, match=r"No locks available.*CLAUDE_PEERS_DB"):
        await office().take()


async def test_a_damaged_database_is_refused_and_frees_the_lock(office, chosen, database, lock):
    database.write_bytes(b"no database at all" * 500)

    with pytest.raises(StoreError, match="claude-peers salvage"):
        await office().take()

    assert not files.is_locked(str(lock))


@pytest.mark.bug("U17")
async def test_lock_and_database_are_private(office, database, lock):
    old = os.umask(0)
    try:
        assert await office().take()
    finally:
        os.umask(old)

    for path in (lock, *database.parent.glob("peers.db*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.fault("F13")
async def test_a_deleted_lock_file_makes_no_second_leader(office, chosen, lock):
    first = office()
    assert await first.take()
    lock.unlink()

    assert not await office().take()

    assert (await post(chosen.port, "/list-peers", {"scope": "machine"})).json() == []
    assert not first.ended.done()


async def test_a_leader_that_has_been_succeeded_writes_nothing_more(office, chosen, lock):
    first = office()
    assert await first.take()
    lock.unlink()
    second = office(chosen.port + 1)
    assert await second.take()
    assert second.epoch == 2

    answer = await post(chosen.port, "/register", {"pid": os.getpid(), "cwd": "/"})

    assert (answer.status, answer.json()["code"]) == (503, "not_leader")
    with anyio.fail_after(BOUND):
        assert await first.ended == "succeeded by another process"
    assert (await post(chosen.port + 1, "/list-peers", {"scope": "machine"})).json() == []


async def test_everybody_who_asks_waits_for_the_one_hand_over(office, chosen, lock):
    held = office()
    assert await held.take()

    async def give_up(why: str) -> bool:
        await held.give_up(why)
        return held.ended.done() and not files.is_locked(str(lock))

    assert await asyncio.gather(give_up("first"), give_up("second")) == [True, True]
    assert held.ended.result() == "first"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(http.get, chosen.port, "/health")


async def test_a_hand_over_goes_on_when_nobody_waits_for_it_any_more(office, lock):
    held = office()
    assert await held.take()
    impatient = asyncio.ensure_future(held.give_up())
    await asyncio.sleep(0)
    impatient.cancel()

    with anyio.fail_after(BOUND):
        await held.ended
    assert not files.is_locked(str(lock))
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_request_in_flight_is_answered_before_the_end(office, chosen):
    held = office()
    assert await held.take()
    me = (await post(chosen.port, "/register", {"pid": os.getpid(), "cwd": "/"})).json()["id"]
    body = {"from_id": me, "to_id": me, "text": "hello"}
    reached = asyncio.Event()
    store = held._server.app.broker.store
    accept = store.accept

    async def slowly(*given: Any, **named: Any) -> Any:
        reached.set()
        return await accept(*given, **named)

    store.accept = slowly
    sending = asyncio.ensure_future(post(chosen.port, "/send-message", body))
    with anyio.fail_after(BOUND):
        await reached.wait()

    await held.give_up()

    answer = (await sending).json()
    assert answer["ok"] is True
    after = office()
    assert await after.take()
    mail = (await post(chosen.port, "/peek-messages", {"id": me})).json()["messages"]
    assert [each["text"] for each in mail] == ["hello"]


async def test_only_a_leader_switches_threads_faster(office):
    usual = sys.getswitchinterval()
    held = office()

    assert await held.take()
    during = sys.getswitchinterval()
    await held.give_up()

    assert (during, sys.getswitchinterval()) == (pytest.approx(leader.SWITCH_INTERVAL), usual)


@pytest.mark.fault("F10")
async def test_a_leader_whose_loop_hangs_is_cut_off_from_the_outside(office, chosen, lock):
    held = office()
    assert await held.take()
    biting = threading.Thread(target=held._stuck)
    biting.start()
    biting.join(BOUND)  # the loop stands still meanwhile, as it would

    assert not files.is_locked(str(lock))
    with pytest.raises((ConnectionError, TimeoutError)):
        http.get(chosen.port, "/health", timeout=1)
    with anyio.fail_after(BOUND):
        assert await held.ended == "stuck"


async def test_a_failing_round_is_not_the_last(office, monkeypatch, caplog):
    monkeypatch.setattr(frames, "PING_EVERY", 0.001)
    monkeypatch.setattr(leader, "SWEEP_EVERY", 0.002)
    held = office()
    assert await held.take()
    failures = [StoreError("full", "Free some space."), RuntimeError("a bug")]
    enough = asyncio.Event()

    async def tidy() -> None:
        if failures:
            raise failures.pop(0)
        enough.set()

    held._server.app.broker.tidy = tidy

    with anyio.fail_after(BOUND):
        await enough.wait()
    told = [record.getMessage() for record in caplog.records if "round failed" in record.message]
    assert len(told) == 2


async def test_the_leaders_own_session_is_no_standby(office):
    held = office()
    assert await held.take()
    assert held.standby is None
    assert held._status()["sessions"] == 0
    assert held._me == processes.identify(os.getpid())
