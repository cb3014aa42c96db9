"""The proxy breaks connections as it says; a test that relies on it is worth no more than it."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.fault_proxy import ANSWERS, BLACK_HOLE, Cut, Delay, FaultProxy, Trickle
from support.waiting import eventually

BOUND = 10
SOON = 0.05
"""Seconds after which what has not come is taken to be held back."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(BOUND)
        yield listening


@pytest.fixture
def proxy(listener: socket.socket) -> Iterator[FaultProxy]:
    with FaultProxy(listener.getsockname()[1]) as carrying:
        yield carrying


@pytest.fixture
def ends(
    proxy: FaultProxy, listener: socket.socket
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a connection's two ends, the caller's first."""
    with closing(socket.create_connection(("127.0.0.1", proxy.port), BOUND)) as caller:
        called, _ = listener.accept()
        called.settimeout(BOUND)
        with closing(called):
            yield caller, called


def read(end: socket.socket, count: int) -> bytes:
    """Return so many bytes."""
    got = b""
    while len(got) < count and (data := end.recv(count - len(got))):
        got += data
    return got


def silent(end: socket.socket) -> bool:
    """Whether nothing comes for a moment."""
    end.settimeout(SOON)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(BOUND)
    return False


def test_bytes_pass_in_both_directions_and_so_does_the_end(proxy, ends):
    caller, called = ends
    much = bytes(range(256)) * 2000
    caller.sendall(b"question")
    assert read(called, 8) == b"question"
    called.sendall(much)
    called.close()
    assert read(caller, len(much) + 1) == much
    caller.close()
    eventually(lambda: proxy.open == 0, what="the end")


def test_a_black_hole_keeps_connections_and_gives_back_what_it_held(proxy, ends):
    caller, called = ends
    proxy.set(answers=BLACK_HOLE)
    called.sendall(b"held")
    called.shutdown(socket.SHUT_WR)
    caller.sendall(b"passes")
    assert read(called, 6) == b"passes"
    assert silent(caller)
    assert (proxy.open, proxy.carried[ANSWERS]) == (1, 0)
    proxy.heal()
    assert read(caller, 5) == b"held"


def test_a_delay_holds_each_direction_by_itself_and_ends_with_the_fault(proxy, ends):
    caller, called = ends
    proxy.set(requests=Delay(BOUND * 100))
    caller.sendall(b"late")
    called.sendall(b"at once")
    assert read(caller, 7) == b"at once"
    assert silent(called)
    proxy.heal()
    assert read(called, 4) == b"late"


def test_a_trickle_lets_bytes_through_one_by_one(proxy, ends):
    caller, called = ends
    proxy.set(answers=Trickle(0.01))
    called.sendall(b"abcdef")
    assert caller.recv(64) == b"a"
    assert silent(caller)
    proxy.set(answers=Trickle(1000))
    assert read(caller, 5) == b"bcdef"


def test_a_request_names_the_port_that_it_reaches(proxy, listener, ends):
    caller, called = ends
    asked = f"Host: 127.0.0.1:{listener.getsockname()[1]}".encode()
    caller.sendall(f"Host: 127.0.0.1:{proxy.port}".encode())
    assert read(called, len(asked)) == asked


def test_a_cut_passes_a_part_of_what_it_waits_for_and_resets_both_ends_once(proxy, ends):
    caller, called = ends
    proxy.set(answers=Cut(at=b"answer", keep=3))
    called.sendall(b"something else")
    assert read(caller, 14) == b"something else"
    called.sendall(b"answer")
    assert read(caller, 3) == b"ans"
    for end in ends:
        with pytest.raises(ConnectionResetError):
            read(end, 1)
    assert proxy.cuts == 1
    with closing(socket.create_connection(("127.0.0.1", proxy.port), BOUND)) as again:
        again.sendall(b"x")
        assert proxy.cuts == 1


def test_a_reset_ends_what_there_is_also_in_a_black_hole(proxy, ends):
    proxy.set(requests=BLACK_HOLE, answers=BLACK_HOLE)
    ends[0].sendall(b"lost")
    proxy.reset()
    for end in ends:
        with pytest.raises(ConnectionResetError):
            read(end, 1)
    assert proxy.open == 0


def test_nobody_behind_the_proxy_is_a_reset(proxy, listener):
    listener.close()
    with (
        pytest.raises(ConnectionResetError),
        closing(socket.create_connection(("127.0.0.1", proxy.port), BOUND)) as caller,
    ):
        read(caller, 1)
