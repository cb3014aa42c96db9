"""Who owns the other end of a connection, asked of the kernel and read from its tables."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from claude_peers.host import linux, portable, sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

CONNECT = """
import encodings.idna, os, socket, sys
if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))):
    sys.stdin.read()
"""
LISTEN = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""
NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def refused(*args: object) -> None:
    raise PermissionError


@pytest.fixture(params=["asked", "not allowed to ask", "nobody answers"])
def kernel(request, monkeypatch) -> str:
    """Every way to learn it: from the kernel, or from its tables where it does not answer."""
    if request.param == "not allowed to ask":
        monkeypatch.setattr(sockets, "_diagnose", refused)
    elif request.param == "nobody answers":
        monkeypatch.setattr(sockets, "_diagnose", lambda local, remote: None)
    return request.param


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@contextmanager
def script(code: str, *arguments: object) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        child.communicate()


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def test_the_other_end_of_a_connection_is_its_clients(kernel, server):
    with socket.create_connection(server.getsockname()) as client:
        ours, peer = server.accept()
        with ours:
            owner = sockets.owner(peer, ours.getsockname())

            assert owner == sockets.SocketOwner(os.getuid(), inode_of(client))


def test_each_of_many_connections_is_told_apart(kernel, server):
    clients = [socket.create_connection(server.getsockname()) for _ in range(20)]
    accepted = [server.accept() for _ in clients]

    found = {peer: sockets.owner(peer, ours.getsockname()) for ours, peer in accepted}

    assert {peer: owner.inode for peer, owner in found.items()} == {
        client.getsockname(): inode_of(client) for client in clients
    }
    for each in (*clients, *(ours for ours, _ in accepted)):
        each.close()


def test_a_process_holds_its_own_end_and_no_other(kernel, server):
    with script(CONNECT, server.getsockname()[1]) as child:
        ours, peer = server.accept()
        with ours:
            owner = sockets.owner(peer, ours.getsockname())

            assert sockets.holds(child.pid, owner.inode)
            assert not sockets.holds(os.getpid(), owner.inode)
            assert not sockets.holds(child.pid, inode_of(ours))
            assert sockets.holds(os.getpid(), inode_of(ours))


@as_root
def test_another_users_connection_is_known_as_such(kernel, server):
    with script(CONNECT, server.getsockname()[1], NOBODY):
        ours, peer = server.accept()
        with ours:
            assert sockets.owner(peer, ours.getsockname()).uid == NOBODY


def test_a_client_that_has_gone_is_not_taken_for_root(kernel, server):
    client = socket.create_connection(server.getsockname())
    ours, peer = server.accept()
    with ours:
        client.close()

        assert sockets.owner(peer, ours.getsockname()) is None


def test_a_listener_on_the_clients_port_is_not_taken_for_the_client(kernel, server):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        ours, peer = server.accept()
        client.shutdown(socket.SHUT_RDWR)
    ours.close()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(peer)
        stranger.listen()

        assert sockets.owner(peer, server.getsockname()) is None


def test_a_client_that_speaks_version_6_of_the_protocol_is_known_too(server):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        ours, peer = server.accept()
        with ours:
            assert sockets.owner(peer, ours.getsockname()).inode == inode_of(client)


def test_a_connection_that_is_not_there_has_no_owner(kernel):
    assert sockets.owner(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert sockets.owner(("::1", 1), ("::1", 2)) is None


@pytest.mark.parametrize("answer", [b"", bytes(20), bytes(88), b"\x24\0\0\0\x02\0" + bytes(100)])
def test_an_answer_that_is_not_about_a_socket_tells_nothing(answer):
    assert sockets._read_answer(answer, bytes(4)) is None


@pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1])
def test_a_process_that_is_not_there_holds_nothing(pid):
    assert not sockets.holds(pid, 1)


def test_a_file_that_is_closed_while_it_is_looked_at_is_not_held(monkeypatch, server):
    def closed(path: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", closed)

    assert not sockets.holds(os.getpid(), inode_of(server))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_is_known_by_user_and_process(kernel, address):
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]

        assert sockets.listener_uid(port) == os.getuid()
        assert sockets.listener_pids(port) == [os.getpid()]


def test_a_listener_on_all_addresses_of_both_families_is_known(kernel):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    address = ("", 0)
    with socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        assert sockets.listener_uid(listener.getsockname()[1]) == os.getuid()


def test_a_port_without_a_listener_has_none(kernel):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        assert sockets.listener_uid(port) is None
        assert sockets.listener_pids(port) == []


def test_a_connection_on_the_port_is_no_listener(kernel, server):
    with socket.create_connection(server.getsockname()) as client:
        assert sockets.listener_uid(client.getsockname()[1]) is None


@as_root
def test_another_users_listener_is_known_as_such(kernel):
    with script(LISTEN, NOBODY) as child:
        port = int(child.stdout.readline())

        assert sockets.listener_uid(port) == NOBODY
        assert sockets.listener_pids(port) == [child.pid]


def test_elsewhere_the_owner_is_unknown_and_the_listener_is_looked_for(monkeypatch, server):
    monkeypatch.setattr(sockets, "_LINUX", False)
    port = server.getsockname()[1]
    with socket.create_connection(server.getsockname()) as client:
        assert sockets.owner(client.getsockname(), server.getsockname()) is None

    assert sockets.listener_uid(port) == os.getuid()
    assert sockets.listener_pids(port) == [os.getpid()]


def test_elsewhere_a_port_without_a_listener_has_none(monkeypatch):
    monkeypatch.setattr(sockets, "_LINUX", False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        assert sockets.listener_uid(port) is None
        assert sockets.listener_pids(port) == []


def test_what_may_not_be_looked_at_is_left_out(monkeypatch, server):
    class Hidden:
        pid = 1

        def net_connections(self, kind: str) -> None:
            raise psutil.AccessDenied(1)

    mine = psutil.Process()
    monkeypatch.setattr(psutil, "process_iter", lambda: iter([Hidden(), mine]))

    assert portable.listeners(server.getsockname()[1]) == [(os.getpid(), os.getuid())]


def test_tables_that_cannot_be_read_tell_nothing(monkeypatch, server):
    monkeypatch.setattr(sockets, "_diagnose", refused)
    monkeypatch.setattr(linux, "read", lambda path: None)

    assert sockets.listener_uid(server.getsockname()[1]) is None
