"""Who floods, trickles or goes in circles is stopped, and nobody else notices."""

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.clients import LINUX, Client
from support.inproc import BOUND, Wire, head, running
from threats.naive import naive

from claude_peers.gateway.connection import Deadlines

MANY = 300
TURNS = 60
SLOW = 100
SHORT = 0.3
"""Seconds that the broker of a test has patience for a request's head."""


def flood(port: int) -> list[bool]:
    """Send under a new name each time on one connection; return which were accepted."""
    with Wire(port) as wire:
        you = wire.ask("/register", {})[1]["id"]
        bodies = ({"from_id": f"x{n}", "to_id": you, "text": "a"} for n in range(MANY))
        return [wire.ask("/send-message", body)[1]["ok"] for body in bodies]


@pytest.mark.bug("B4-19")
@pytest.mark.threat("T23")
def test_a_flood_under_changing_names_gets_no_more_than_the_burst():
    with running(limited=True) as broker:
        accepted = flood(broker.port)
        assert all(accepted[:60])
        assert sum(accepted) < 2 * 60  # and what comes back meanwhile, two a second
        assert broker.run(broker.store.ledger()).accepted == sum(accepted)


@pytest.mark.threat("T23")
def test_the_same_flood_is_taken_whole_where_nobody_counts():
    with naive() as (port, broker):
        assert all(flood(port))
        assert len(broker.mail) == MANY


def ping_pong(port: int) -> list[dict[str, object]]:
    """Let two processes answer what they get, at once; return what each turn was told."""
    with Client(port) as one, Client(port) as other:
        ids = [each.register()["id"] for each in (one, other)]
        told = []
        for turn in range(TURNS):
            body = {"from_id": ids[turn % 2], "to_id": ids[1 - turn % 2], "text": "thanks!"}
            told.append((one, other)[turn % 2].ask("/send-message", body)[1])
            if not told[-1]["ok"]:  # there is nothing to answer
                break
        return told


@LINUX
@pytest.mark.threat("T26")
def test_two_agents_that_thank_each_other_are_stopped():
    with running(limited=True) as broker:
        told = ping_pong(broker.port)
    *accepted, refused = told
    assert 6 <= len(accepted) < TURNS / 2
    assert refused["code"] == "loop_guard"
    assert refused["retry_after"] > 0


@pytest.mark.threat("T26")
def test_the_same_two_never_stop_where_nobody_counts():
    with naive() as (port, _):
        assert [each["ok"] for each in ping_pong(port)] == [True] * TURNS


def trickle(port: int, *, during: Callable[[], None]) -> int:
    """Open many connections that never finish a request; return how many the broker ends."""
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=BOUND))
            for _ in range(SLOW)
        ]
        for each in slow:
            each.sendall(head(port, "GET", "/health")[:-2])
        during()
        for each in slow:
            readable, _, _ = select.select([each], [], [], 4 * SHORT)
            if not readable:  # it waits for ever, and would be served even now
                return 0
        return sum(_is_ended(each) for each in slow)


def _is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.threat("T24")
def test_a_hundred_slow_connections_are_cut_and_others_are_served_meanwhile():
    with running(deadlines=Deadlines(head=SHORT)) as broker:

        def served() -> None:
            with Wire(broker.port) as wire:
                assert wire.ask("/list-peers")[0] == 200

        assert trickle(broker.port, during=served) == SLOW


@pytest.mark.threat("T24")
def test_the_same_connections_stay_where_nobody_has_a_deadline():
    with naive() as (port, _):
        assert trickle(port, during=lambda: None) == 0
