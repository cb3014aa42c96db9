"""Others hold what a leader needs: the lock without the port, or a port shared with Windows."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support import inproc
from support.brokers import Caller
from support.http import get, post
from support.machine import Machine, free_port

from claude_peers import settings
from claude_peers.client.link import LiveLink
from claude_peers.client.upstream import UpstreamLink
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import files, processes, sockets
from claude_peers.node.port import Port
from claude_peers.settings import Settings
from claude_peers.wire.records import RegisterRequest

PATIENCE = 14
"""Seconds within which a tool must have said something: 10, and what starting a thread may take."""
HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
ANOTHER = b"w" * 32
"""The secret of the same person's other system."""


# The lock


@pytest.fixture
def holder(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds the lock and lives, and serves nobody."""
    folder = str(machine.database).removesuffix(".db") + ".d"
    files.private_folder(folder)
    command = [sys.executable, "-c", HOLD, f"{folder}/broker.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
@pytest.mark.fault("F12")
def test_a_live_process_that_holds_the_lock_makes_nobody_wait_for_ever(machine: Machine, holder):
    session = machine.session()
    session.list_prompts()

    told, failed = session.call("list_peers", timeout=PATIENCE)

    assert failed
    assert "within 10 s" in told and "claude-peers status" in told
    assert not machine.database.exists()  # nobody leads without the lock
    holder.communicate()
    assert machine.wait_for_broker() == session.pid
    assert not session.call("list_peers", timeout=PATIENCE)[1]


# Windows, on the port that WSL2 shares with it: the system here knows no owner of that listener


@pytest.fixture
def shared(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings on a system that cannot tell who listens."""
    monkeypatch.setattr(sockets, "listener_uid", lambda port: None)
    environ = {
        "HOME": str(tmp_path),
        "CLAUDE_PEERS_DB": str(tmp_path / "peers.db"),
        "CLAUDE_PEERS_PORT": str(free_port()),
    }
    return settings.load(environ)


@pytest.mark.anyio
@pytest.mark.fault("F48")
async def test_a_broker_on_the_windows_side_is_told_nothing_until_the_user_trusts_it(shared):
    with inproc.running() as windows:
        here = replace(shared, port=windows.port)
        with pytest.raises(NoBrokerError, match=r"has not proven itself.*TRUST_LISTENER=1"):
            await Port(here).reach(ANOTHER)
        assert windows.do(windows.broker.roster.present) == []

        link = await Port(replace(here, trust_listener=True)).reach(ANOTHER)

        assert isinstance(link, UpstreamLink)  # one broker for both sides
        link.close()
        await link.ended()


@pytest.mark.anyio
@pytest.mark.fault("F48")
async def test_a_broker_on_the_windows_side_that_knows_the_secret_is_followed(shared):
    with inproc.running() as windows:
        link = await Port(replace(shared, port=windows.port)).reach(inproc.SECRET)
        assert isinstance(link, LiveLink)
        link.close()
        await link.ended()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this system tells no owners")
@pytest.mark.fault("F48")
def test_connections_that_a_relay_of_another_user_makes_need_a_token():
    with inproc.running(uid=processes.user_id() + 1) as here:
        refused = get(here.port, "/health")
        assert (refused.status, refused.json()["code"]) == (401, "other_user")
        assert "CLAUDE_PEERS_PORT" in refused.json()["remedy"]

        token = registered(here)
        bearer = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        listed = post(here.port, "/list-peers", {"scope": "machine"}, bearer)
        wrong = post(here.port, "/list-peers", {}, bearer | {"Authorization": "Bearer x"})

        assert (listed.status, [peer["name"] for peer in listed.json()]) == (200, ["bob"])
        assert (wrong.status, wrong.json()["code"]) == (401, "invalid_token")


def registered(here: inproc.Running) -> str:
    """Register a peer from this side; return its token."""
    request = RegisterRequest(name="bob", cwd="/proj/bob")
    return str(here.run(here.broker.peers.register(Caller(), request)).token)
