"""Second servers of one agent on live connections, and what was held, pushed late."""

import asyncio
import contextlib
import os
import threading

import pytest
from support.inproc import BOUND, SECRET, LiveWire, running
from support.waiting import eventually

from claude_peers.gateway.live import LiveProtocol
from claude_peers.wire import proof


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


@pytest.fixture
def live(broker):
    with LiveWire(broker.port) as client:
        yield client


def send(wire, number, to_id, text):
    """Send a message over a live connection and return its id."""
    body = {"from_id": "cli", "to_id": to_id, "text": text}
    return wire.call(number, "/send-message", body)[1]["message_id"]


def states(broker):
    """Return the ledger's counts; it must balance."""
    counts = broker.run(broker.store.ledger())
    assert counts.balanced
    return {state.value: count for state, count in counts.states.items()}


LIVE_KEY = {"keys": ["live:1"]}


@pytest.fixture
def pair(broker, live):
    """Return the answers to a first and a second server, and the second's connection."""
    first = live.join(pid=os.getpid(), name="main", **LIVE_KEY)
    with LiveWire(broker.port) as beside:
        yield first, beside.join(pid=os.getppid(), **LIVE_KEY), beside


def test_a_second_server_shares_the_peer_and_is_not_pushed_to(broker, live, pair):
    first, second, beside = pair
    assert (second["id"], second["secondary"]) == (first["id"], True)
    assert send(beside, 2, first["id"], "hello") == 1
    assert live.text() == "hello"
    assert [peer["id"] for peer in beside.call(3, "/list-peers")[1]] == [first["id"]]
    assert beside.early == []
    assert len(broker.server.sessions) == 2


def test_the_first_server_is_told_what_the_second_has_read(broker, live, pair):
    first, _, beside = pair
    number = send(live, 2, first["id"], "hello")
    taken = beside.call(2, "/poll-messages", {"id": first["id"], "ack_supported": True})[1]
    assert [view["id"] for view in taken["messages"]] == [number]
    body = {"id": first["id"], "message_ids": [number]}
    assert beside.call(3, "/ack-messages", body) == (200, {"ok": True, "acked": 1})
    live.call(3, "/ledger")
    assert [frame for frame in live.early if "settled" in frame] == [{"settled": [number]}]
    assert not [frame for frame in beside.early if "settled" in frame]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_second_server_that_is_killed_leaves_no_token_behind(broker, live, pair, how):
    *_, beside = pair
    assert broker.do(lambda: len(broker.broker.roster._attached)) == 1
    beside.leave(how)
    eventually(lambda: not broker.do(lambda: broker.broker.roster._attached), timeout=BOUND)


def test_a_second_server_that_leaves_or_breaks_off_leaves_the_peer_and_its_mail(broker, live, pair):
    first, _, beside = pair
    send(live, 2, first["id"], "in hand")
    taken = live.call(3, "/poll-messages", {"id": first["id"], "ack_supported": True})[1]
    assert len(taken["messages"]) == 1
    assert beside.call(2, "/unregister", {"id": first["id"]}) == (200, {"ok": True})
    beside.leave("close")
    eventually(lambda: len(broker.server.sessions) == 1, timeout=BOUND)
    assert broker.do(lambda: broker.connections.reaches(first["id"]))
    assert states(broker) == {"leased": 1}
    assert [peer["id"] for peer in live.call(4, "/list-peers")[1]] == [first["id"]]


def test_a_second_server_is_hung_up_on_when_the_first_leaves_and_takes_its_place(
    broker, live, pair
):
    first, _, beside = pair
    assert live.call(2, "/unregister", {"id": first["id"]})[0] == 200
    assert ended(beside)
    with LiveWire(broker.port) as again:
        heir = again.join(pid=os.getppid(), **LIVE_KEY)
        assert heir["id"] == first["id"] and "secondary" not in heir
        send(again, 2, first["id"], "for the heir")
        assert again.text() == "for the heir"


def ended(wire) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return wire.rest() == b""
    return True


def test_a_second_server_that_is_gone_before_its_answer_ends_nothing(broker, live, monkeypatch):
    end = LiveProtocol.connection_lost
    first = live.join(pid=os.getpid(), **LIVE_KEY)
    with LiveWire(broker.port) as beside:
        beside.upgrade()
        known = proof.client_proof(SECRET, beside.challenge)
        register = broker.broker.peers.register
        entered, go_on = threading.Event(), asyncio.Event()

        async def slowly(*given):
            entered.set()
            await go_on.wait()
            return await register(*given)

        broker.broker.peers.register = slowly
        lost = []
        monkeypatch.setattr(
            LiveProtocol, "connection_lost", lambda self, exc: lost.append(end(self, exc))
        )
        beside.frame(1, "/register", {"pid": os.getppid(), "proof": known, **LIVE_KEY})
        assert entered.wait(BOUND)
        beside.leave("reset")
        eventually(lambda: broker.do(lambda: lost), timeout=BOUND)
        broker.do(go_on.set)
    eventually(lambda: broker.do(lambda: not broker.broker._context._background), timeout=BOUND)
    assert broker.do(lambda: broker.broker.roster._attached) == {}
    assert [peer["id"] for peer in live.call(2, "/list-peers")[1]] == [first["id"]]


def test_what_was_held_is_pushed_when_its_sender_is_unmuted(broker, live):
    me = live.join(name="main")["id"]
    with LiveWire(broker.port) as other:
        them = other.join(name="other")["id"]
        assert live.call(2, "/mute", {"id": me, "peer_id": "other"})[1]["muted"]
        body = {"from_id": them, "to_id": me, "text": "held"}
        assert other.call(2, "/send-message", body)[1]["state"] == "held"
        send(other, 3, me, "open")
        assert live.text() == "open"
        live.call(3, "/mute", {"id": me, "peer_id": them, "muted": False})
        assert live.text() == "held"
