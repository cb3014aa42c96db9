"""What a leader holds open is its alone, and its clients ask nobody else."""

import errno
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support import http
from support.machine import Machine
from support.waiting import eventually

from claude_peers.host import sockets

pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
STANDARD = {0, 1, 2}


def inheritable(pid: int) -> list[str]:
    """Return what a child of the process would inherit, besides the standard descriptors."""
    found = []
    for each in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            lines = each.read_text().splitlines()
            flags = next(line for line in lines if line.startswith("flags:"))
            if int(each.name) not in STANDARD and not int(flags.split()[1], 8) & os.O_CLOEXEC:
                found.append(os.readlink(f"/proc/{pid}/fd/{each.name}"))
    return found


@pytest.mark.fault("F15")
def test_a_child_process_inherits_neither_lock_nor_socket_nor_database(machine: Machine):
    session = machine.session()
    session.list_prompts()
    assert machine.wait_for_broker() == session.pid
    assert inheritable(session.pid) == []


@pytest.mark.fault("F47")
def test_nobody_can_listen_beside_the_leader(machine: Machine):
    machine.serve()
    with socket.socket() as beside:
        assert beside.connect_ex(("127.0.0.1", machine.port)) == 0  # it listens
    with socket.socket() as beside:
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            beside.bind(("127.0.0.1", machine.port))


@pytest.mark.parametrize("address", ["127.0.0.1", ""], ids=["the same address", "any address"])
@pytest.mark.fault("F47")
def test_nobody_leads_beside_a_listener_that_shares_its_port(machine: Machine, address):
    with socket.socket() as stranger:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            stranger.setsockopt(socket.SOL_SOCKET, option, 1)
        stranger.bind((address, machine.port))
        stranger.listen()
        node = machine.start("serve")
        eventually(lambda: accepted(stranger), what="the node's question")
        assert sockets.listener_pids(machine.port) == [os.getpid()]
        assert node.poll() is None
    assert machine.wait_for_broker() == node.pid


@pytest.mark.fault("F47")
def test_the_leader_asks_for_itself_on_the_port_that_it_serves(machine: Machine):
    node = machine.serve()

    def told() -> dict:
        return http.get(machine.port, "/status").json()

    eventually(lambda: told()["sessions"] == 1, what="its own connection")
    assert (told()["pid"], told()["epoch"]) == (node.pid, 1)


def accepted(listener: socket.socket) -> bool:
    """Take a connection, if one waits, and hang up."""
    listener.settimeout(0)
    with suppress(BlockingIOError):
        listener.accept()[0].close()
        return True
    return False


@pytest.mark.fault("F46")
def test_a_stranger_on_the_other_loopback_is_asked_nothing(machine: Machine):
    try:
        stranger = socket.create_server(("::1", machine.port), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with stranger:
        stranger.settimeout(0)
        machine.serve()
        session = machine.session()
        session.list_prompts()
        assert machine.peer_id(session)
        assert machine.cli("status").returncode == 0
        with pytest.raises(BlockingIOError):
            stranger.accept()
