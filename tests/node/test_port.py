"""Whoever listens on the port: another user, upstream, a stranger, a stopped leader."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.machine import Machine, free_port
from support.upstream import Upstream
from support.waiting import eventually

from claude_peers.client import link
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import files, processes, sockets
from claude_peers.node.port import OTHER_PORTS, Port
from claude_peers.settings import Settings

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
SECRET = b"s" * 32


@contextlib.contextmanager
def silent(port: int = 0) -> Iterator[int]:
    """Listen and never say a word; yields the port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def upstream(machine: Machine) -> Iterator[Upstream]:
    broker = Upstream(machine.port)
    try:
        yield broker
    finally:
        broker.close()


# Another user's broker


@pytest.fixture
def usual(choose) -> Settings:
    """Return settings whose port nobody chose: another user has it."""
    return replace(choose(CLAUDE_PEERS_PORT=None), port=free_port())


@pytest.fixture
def other_user(usual: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    files.private_folder(usual.state_folder)
    uid, whose = processes.user_id() + 1, sockets.listener_uid
    monkeypatch.setattr(
        sockets, "listener_uid", lambda port: uid if port == usual.port else whose(port)
    )
    broker = Upstream(usual.port)
    try:
        yield broker
    finally:
        broker.close()


@pytest.mark.anyio
@pytest.mark.fault("F36")
async def test_a_second_user_of_the_machine_gets_a_port_of_their_own(usual, other_user):
    port = Port(usual)

    assert await port.reach(SECRET) is None

    assert port.number == usual.port + 1 + processes.user_id() % OTHER_PORTS
    assert other_user.requests == []


@pytest.mark.anyio
async def test_every_process_of_that_user_finds_the_port_again(usual, other_user):
    first, second = Port(usual), Port(usual)
    await first.reach(SECRET)
    second.recall()

    assert second.number == first.number
    assert await second.reach(SECRET) is None


@pytest.mark.anyio
async def test_a_port_that_was_chosen_is_kept(usual, other_user):
    chosen = replace(usual, environ={"CLAUDE_PEERS_PORT": str(usual.port)})
    port = Port(chosen)
    port.recall()

    with pytest.raises(NoBrokerError, match=r"another user.*CLAUDE_PEERS_PORT"):
        await port.reach(SECRET)

    assert port.number == usual.port


@pytest.mark.anyio
async def test_a_broker_that_was_named_is_not_looked_for_elsewhere(usual, other_user):
    port = Port(replace(usual, broker_url=f"http://127.0.0.1:{usual.port}"))

    with pytest.raises(NoBrokerError, match="another user"):
        await port.reach(SECRET)


def test_a_record_that_holds_no_port_is_ignored(usual):
    files.private_folder(usual.state_folder)
    files.write_private(os.path.join(usual.state_folder, "port"), b"none")
    port = Port(usual)

    port.recall()

    assert port.number == usual.port


# Listeners that say nothing


@pytest.mark.anyio
async def test_a_listener_that_does_not_answer_is_named(chosen, monkeypatch):
    monkeypatch.setattr(link, "HANDSHAKE", 0.05)
    told = rf"does not answer \(pid {os.getpid()}\)"
    with silent(chosen.port), pytest.raises(NoBrokerError, match=told):
        await Port(chosen).reach(SECRET)


@pytest.mark.anyio
async def test_a_stopped_stranger_is_not_woken(chosen, monkeypatch):
    monkeypatch.setattr(link, "HANDSHAKE", 0.05)
    monkeypatch.setattr(processes, "is_stopped", lambda pid: True)
    monkeypatch.setattr(processes, "revive", lambda process: pytest.fail("woken"))
    with silent(chosen.port), pytest.raises(NoBrokerError, match="does not answer"):
        await Port(chosen).reach(SECRET)


@posix
@pytest.mark.processes
@pytest.mark.xdist_group("processes")
def test_a_newcomer_wakes_a_leader_that_is_stopped_and_alone(machine: Machine):
    first = machine.session()
    first.list_prompts()
    machine.peer_id(first)
    first.kill(signal.SIGSTOP)
    eventually(lambda: processes.is_stopped(first.pid), what="stopped")

    second = machine.session()

    assert first.pid != second.pid
    assert f"PID: {first.pid}" in second.call("list_peers")[0]
    assert machine.broker == first.pid


# Strangers, as an agent sees it


@pytest.mark.bug("U8")
@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.fault("F11")
@pytest.mark.threat("T11")
def test_an_agent_is_told_who_has_the_port_and_works_once_it_is_free(machine: Machine):
    session = machine.session(handshake=False)
    stranger = Upstream(machine.port, health={"hello": "world"})
    try:
        session.initialize()
        text, failed = session.call("list_peers")
    finally:
        stranger.close()

    assert failed
    assert f"(pid {os.getpid()})" in text and "CLAUDE_PEERS_PORT" in text
    assert stranger.requests == []
    assert machine.wait_for_broker(timeout=5) == session.pid
    eventually(lambda: not session.call("list_peers")[1], what="a working tool")


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize(
    ("content", "remedy"), [(b"garbage" * 999, "claude-peers salvage"), (None, "CLAUDE_PEERS_DB")]
)
def test_an_agent_is_told_what_is_wrong_with_the_database(machine: Machine, content, remedy):
    path = machine.database
    if content is None:
        (machine.home / "file").touch()
        path = machine.home / "file" / "peers.db"
    else:
        path.write_bytes(content)

    session = machine.session(CLAUDE_PEERS_DB=str(path))
    text, failed = session.call("list_peers")

    assert failed
    assert remedy in text
    assert len(session.list_tools()) >= 4


# Upstream


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.fault("F38")
def test_a_session_is_an_upstream_brokers_client_and_leads_after_it(machine: Machine, upstream):
    other = upstream.join("an upstream session")
    session = machine.session()

    assert other in session.call("list_peers")[0]
    assert session.call("set_summary", summary="testing") == ('Summary updated: "testing"', False)
    assert session.call("send_message", to_id=other, message="hello upstream")[1] is False
    me = next(peer_id for peer_id in upstream.peers if peer_id != other)
    upstream.answer("/send-message", {"from_id": other, "to_id": me, "text": "hello session"})
    push = session.wait_for_push("hello session")
    text, failed = session.call("check_messages")

    assert upstream.mail[other][0]["text"] == "hello upstream"
    assert upstream.peers[me]["summary"] == "testing"
    assert push["meta"]["from_id"] == other
    assert "hello session" in text and not failed
    assert session.call("check_messages")[0].startswith("No new messages")
    assert not machine.database.exists()

    upstream.close()

    assert machine.wait_for_broker(timeout=5) == session.pid
    assert session.call("list_peers")[1] is False


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.fault("F37")
def test_a_second_home_of_the_same_user_uses_the_first_ones_broker(machine: Machine):
    first = machine.session()
    first.list_prompts()
    machine.peer_id(first)
    elsewhere = {
        "HOME": str(machine.folder("home2")),
        "CLAUDE_PEERS_DB": str(machine.folder("home2") / "peers.db"),
    }
    second = machine.session(**elsewhere)
    second.list_prompts()
    second_id = machine.peer_id(second)

    assert str(first.pid) in second.call("list_peers")[0]
    assert first.call("send_message", to_id=second_id, message="across homes")[1] is False
    assert second.wait_for_push("across homes")
    assert "across homes" in second.call("check_messages")[0]
    assert machine.broker == first.pid

    first.kill()

    assert machine.wait_for_broker(other_than=first.pid) == second.pid
    assert Path(elsewhere["CLAUDE_PEERS_DB"]).exists()


# The command line's view


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
def test_a_broker_that_is_alone_leads_again_after_kill_broker(machine: Machine):
    node = machine.serve()

    told = machine.cli("kill-broker")

    assert told.returncode == 0
    assert f"Leads now: pid {node.pid}, epoch 2" in told.stdout
