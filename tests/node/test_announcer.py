"""When a broker is announced on the local network, and when not."""

import socket
import threading

import pytest

from claude_peers.host import lan
from claude_peers.node.announcer import Announcer
from claude_peers.wire.announcement import LONGEST, decode


@pytest.fixture
def ear():
    """Return a socket that hears datagrams on this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears:
        hears.bind(("127.0.0.1", 0))
        hears.settimeout(10)
        yield hears


def nothing_came(ear):
    ear.setblocking(False)
    try:
        with pytest.raises(BlockingIOError):
            ear.recvfrom(LONGEST)
    finally:
        ear.settimeout(10)


def test_a_broker_that_listens_is_announced_at_every_second_round(ear):
    announcer = Announcer(ear.getsockname(), host="hub", fleet_id="gold")
    for _ in range(4):
        announcer.tell(["10.0.0.1:7899"])
    for _ in range(2):
        data, (source, _) = ear.recvfrom(LONGEST)
        told = decode(data, source)
        assert (told.url, told.fleet_id) == ("https://hub:7899", "gold")
    nothing_came(ear)


def test_one_that_listens_nowhere_is_not_announced_until_it_does(ear):
    announcer = Announcer(ear.getsockname(), host="hub", fleet_id=None)
    announcer.tell([])
    nothing_came(ear)
    announcer.tell(["10.0.0.1:7899"])
    assert decode(ear.recvfrom(LONGEST)[0], "a").fleet_id == ""


def test_without_leave_nothing_is_sent(monkeypatch):
    monkeypatch.setattr(lan, "send", lambda *_: pytest.fail("something was sent"))
    Announcer(None, host="hub", fleet_id=None).tell(["10.0.0.1:7899"])


def test_a_network_that_is_away_is_told_once_and_harms_nobody(monkeypatch, caplog):
    announcer = Announcer(("127.0.0.1", 9), host="hub", fleet_id=None)

    def refuse(*_):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(lan, "send", refuse)
    for _ in range(4):
        announcer.tell(["10.0.0.1:7899"])
    assert [each.levelname for each in caplog.records] == ["WARNING"]


def test_what_is_sent_is_received_until_the_time_is_over(ear):
    port = ear.getsockname()[1]
    ear.close()
    heard = []
    ready = threading.Event()

    def listen():
        receiving = lan.receive(("127.0.0.1", port), within=10.0, longest=5)
        ready.set()
        for each in receiving:
            heard.append(each)
            if len(heard) == 2:
                receiving.close()

    listener = threading.Thread(target=listen)
    listener.start()
    assert ready.wait(10)
    for _ in range(1000):
        lan.send(b"too long", ("127.0.0.1", port))
        listener.join(0.01)
        if not listener.is_alive():
            break
    assert heard == [(b"too lo", "127.0.0.1")] * 2
    assert list(lan.receive(("127.0.0.1", port), within=0.01, longest=5)) == []


def test_an_address_that_is_not_ours_is_named_with_the_remedy():
    with pytest.raises(lan.CannotListenError, match="CLAUDE_PEERS_DISCOVERY_ADDRESS"):
        list(lan.receive(("192.0.2.1", 7900), within=1.0, longest=5))
