"""The listeners for other machines: where, when, and why not."""

import asyncio
import os
import socket
import sys

import anyio
import pytest
from support.abroad import abroad
from support.machine import free_port

from claude_peers.client import joined, remote_live
from claude_peers.client.errors import RefusedError
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import addresses, certificate
from claude_peers.node import doors
from claude_peers.node.abroad import Abroad
from claude_peers.node.doors import RemoteDoors, listen
from claude_peers.settings import load
from claude_peers.wire.invitation import Address, Invitation

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is ours on Linux only"),
]


class Opened:
    """A server that only notes what it is to accept on."""

    def __init__(self):
        self.listeners = []

    async def start_tls(self, listener, context):
        assert context
        self.listeners.append(listener)


@pytest.fixture
def make(tmp_path):
    server, port = Opened(), free_port()

    def make(bind):
        database = str(tmp_path / "state" / "peers.db")
        os.makedirs(database.removesuffix(".db") + ".d", mode=0o700, exist_ok=True)
        settings = load({"CLAUDE_PEERS_BIND": bind, "CLAUDE_PEERS_DB": database})
        return RemoteDoors(settings, server, port=port), port

    yield make
    for listener in server.listeners:
        listener.close()


def folder_of(made):
    return made._settings.state_folder


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1"])
async def test_for_this_machine_alone_nothing_is_opened_nor_made(make, bind):
    made, _ = make(bind)
    await made.open()
    assert made.told() == doors.Doors()
    assert os.listdir(folder_of(made)) == []


async def test_each_address_gets_a_listener_on_the_same_port(make):
    made, port = make("127.0.0.2,127.0.0.1,127.0.0.3")
    await made.open()
    told = made.told()
    assert told.addresses == (f"127.0.0.2:{port}", f"127.0.0.3:{port}")
    assert told.pin == certificate.ensure(folder_of(made)).pin
    assert told.problem is None
    await made.open()
    assert made.told() == told


async def test_every_address_means_those_there_are_and_those_that_come(make, monkeypatch):
    there = ["127.0.0.2"]
    monkeypatch.setattr(addresses, "own", lambda: there)
    made, port = make("0.0.0.0")
    await made.open()
    assert made.told().addresses == (f"127.0.0.2:{port}",)
    there.append("127.0.0.3")
    await made.open()
    assert made.told().addresses == (f"127.0.0.2:{port}", f"127.0.0.3:{port}")


async def test_an_address_that_is_not_ours_is_told_and_keeps_no_other_shut(make, monkeypatch):
    monkeypatch.setattr(addresses, "own", list)
    made, port = make("192.0.2.77,127.0.0.2")
    heard = []
    made.begin(heard.append)
    with anyio.fail_after(20):
        await made.opened()
    told = made.told()
    assert told.addresses == (f"127.0.0.2:{port}",)
    assert f"cannot listen on 192.0.2.77:{port}" in str(told.problem)
    assert "(none but 127.0.0.1)" in told.problem.remedy
    assert heard == [told.problem]
    made.close()


async def test_a_port_that_is_taken_is_told_until_it_is_free(make):
    made, port = make("127.0.0.2")
    with socket.create_server(("127.0.0.2", port)):
        await made.open()
        assert "in use" in str(made.told().problem)
        await made.open()
    await made.open()
    assert made.told().problem is None
    assert made.told().addresses == (f"127.0.0.2:{port}",)


async def test_without_a_certificate_nothing_is_opened_and_it_says_why(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    made, _ = make("127.0.0.2")
    await made.open()
    told = made.told()
    assert told.addresses == ()
    assert "No certificate can be made" in str(told.problem)


def spoil(path):
    """Make a key unusable, and leave its certificate."""
    with open(path) as file:
        whole = file.read()
    with open(path, "w") as file:
        file.write(whole.replace("BEGIN PRIVATE", "BEGIN BROKEN"))


async def test_a_key_that_is_damaged_or_read_by_others_opens_nothing(make):
    made, _ = make("127.0.0.2")
    path = certificate.ensure(folder_of(made)).path
    os.chmod(path, 0o644)
    await made.open()
    assert "Others may read" in str(made.told().problem)
    os.chmod(path, 0o600)
    spoil(path)
    await made.open()
    assert "cannot be used" in str(made.told().problem)
    assert made.told().addresses == ()


async def test_who_does_not_wait_is_told_at_once(make):
    made, _ = make("127.0.0.2")
    await made.opened()
    made.close()
    assert made.told().addresses == ()


async def test_opening_is_given_up_when_the_leader_ends(make):
    made, _ = make("127.0.0.2")
    made.begin(lambda _problem: None)
    made.close()
    with pytest.raises(asyncio.CancelledError):
        await made.opened()
    assert made.listeners == {}


def test_an_ipv6_address_can_be_listened_on():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = listen("::1", free_port())
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with listener:
        assert listener.family == socket.AF_INET6


# The other end


async def test_a_broker_that_never_answers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_live, "HANDSHAKE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(*silent.getsockname())
        settings = load(
            {
                "CLAUDE_PEERS_DB": str(tmp_path / "x.db"),
                "CLAUDE_PEERS_BROKER_URL": f"https://127.0.0.3:{address.port}",
            }
        )
        invited = Invitation(addresses=(address,), pin=bytes(32), code="c" * 22)
        joined.keep(settings.state_folder, invited, token="t" * 43, name="mac")
        there = Abroad(settings, str(address))
        assert there.prepare() == b"t" * 43
        with pytest.raises(NoBrokerError, match="does not answer"):
            await there.reach(b"")
    assert await there.reach(b"") is None


async def test_a_broker_that_refuses_says_why_to_the_node(tmp_path):
    with abroad() as broker:
        address = broker.joined.address
        settings = load(
            {
                "CLAUDE_PEERS_DB": str(tmp_path / "x.db"),
                "CLAUDE_PEERS_BROKER_URL": f"https://127.0.0.3:{address.port}",
            }
        )
        invited = Invitation(addresses=(address,), pin=broker.joined.pin, code="c" * 22)
        joined.keep(settings.state_folder, invited, token=broker.joined.token, name="mac")
        there = Abroad(settings, str(address))
        link = await there.reach(there.prepare())
        assert link.epoch == 1
        link.close()
        await link.ended()
        await asyncio.to_thread(broker.revoke)
        with pytest.raises(RefusedError, match="mac was revoked"):
            await there.reach(b"")
