"""The way to a broker on another machine, and what keeps it from being anybody else's."""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
import threading
import time
from dataclasses import replace

import anyio
import pytest
from support.abroad import BOUND, abroad
from support.tls import shown

from claude_peers.client import joined, joining
from claude_peers.client.client import Client
from claude_peers.client.errors import RefusedError
from claude_peers.client.http import BrokerHttp
from claude_peers.client.joined import NotJoinedError
from claude_peers.client.link import NotOursError
from claude_peers.client.remote import RemoteLink
from claude_peers.client.remote_live import connect
from claude_peers.core.errors import NoBrokerError, StoreError
from claude_peers.wire.invitation import Address, Invitation
from claude_peers.wire.tls import PinChangedError

pytestmark = pytest.mark.anyio


@pytest.fixture
def there():
    with abroad() as made:
        yield made


def http(place, **changed):
    given = {"secret": place.secret, "trust_listener": False, "own_uid": 1, **changed}
    return BrokerHttp(place, listener_uid=lambda _port: None, **given)


@contextlib.contextmanager
def listening(serve):
    """Serve one connection after the other on a thread; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listener.accept()
                    taken.settimeout(BOUND)
                    with taken, contextlib.suppress(OSError):
                        serve(taken)

        thread = threading.Thread(target=run)
        thread.start()
        yield Address(*listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(BOUND)


def impostor(said, *, answer=b""):
    """Return who has another certificate, and takes down what is said to it inside TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown(1).path)

    def serve(taken):
        with context.wrap_socket(taken, server_side=True) as inside:
            said.append(inside.recv(65536))
            inside.sendall(answer)

    return serve


# Requests


def test_requests_are_signed_one_by_one_over_one_connection(there):
    with http(there.joined) as way:
        assert way.proven
        assert way.epoch == 1
        joined_peer = way.post("/register", {"cwd": "/p"}, authenticate=True)[1]
        assert way.get("/health")[1]["peers"] == 1
        body = {"id": joined_peer["id"]}
        assert way.post("/poll-messages", body, token=joined_peer["token"])[0] == 200


def test_a_long_answer_arrives_whole(there):
    with http(there.joined) as way:
        for number in range(300):
            way.post("/register", {"summary": "x" * 500, "name": f"peer-{number}"})
        assert len(way.post("/list-peers", {})[1]) == 300


def test_a_connection_that_was_ended_is_made_anew(there):
    with http(there.joined) as way:
        there.broker.do(there.broker.server.expel, "mac")
        assert way.get("/health")[0] == 200


def test_another_certificate_gets_no_byte(there):
    said = []
    with (
        listening(impostor(said)) as address,
        pytest.raises(PinChangedError, match="nothing was sent"),
    ):
        http(replace(there.joined, address=address)).open()
    assert said in ([], [b""])


@pytest.mark.parametrize("serve", [lambda taken: taken.sendall(b"220 mail\r\n" * 9)])
def test_who_does_not_speak_tls_is_told_apart(there, serve):
    with (
        listening(serve) as address,
        pytest.raises(NoBrokerError, match=r"does not speak TLS 1\.3"),
    ):
        http(replace(there.joined, address=address)).open()


def test_who_hangs_up_in_the_handshake_is_a_broken_connection(there):
    with (
        listening(lambda taken: taken.recv(1)) as address,
        pytest.raises(NoBrokerError, match="broke off"),
    ):
        http(replace(there.joined, address=address)).open()


def test_who_knows_no_token_of_ours_is_a_stranger(there):
    said = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    theirs = replace(there.joined, pin=shown(1).pin)
    with (
        listening(impostor(said, answer=answer)) as address,
        pytest.raises(NoBrokerError, match="A stranger"),
    ):
        http(replace(theirs, address=address)).open()


def test_a_refusal_is_the_brokers_own_words(there):
    there.revoke()
    with pytest.raises(RefusedError, match="mac was revoked") as refused:
        http(there.joined).open()
    assert refused.value.code == "machine_revoked"


def test_a_refusal_that_says_nothing_is_a_strangers(there):
    theirs = replace(there.joined, pin=shown(1).pin)
    answer = b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno"
    with (
        listening(impostor([], answer=answer)) as address,
        pytest.raises(NoBrokerError, match="A stranger"),
    ):
        http(replace(theirs, address=address)).open()


def test_nobody_there_and_no_way_there_are_told_apart(there):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = replace(there.joined, address=Address(*free.getsockname()))
        with pytest.raises(NoBrokerError, match=r"claude-peers serve` there"):
            http(nobody).open()
    nowhere = replace(there.joined, address=Address("no-such-host.invalid", 1))
    with pytest.raises(NoBrokerError, match="network between the two machines"):
        http(nowhere).open()


# A session


async def test_a_session_registers_sends_and_is_pushed_to(there):
    client = Client(lambda: {"name": "bob", "cwd": "/p"})
    arrived = asyncio.get_running_loop().create_future()
    client.pushed = lambda message, sender: arrived.set_result((message["text"], sender))
    link = await connect(there.joined)
    await client.attach(link, there.joined.secret)
    await client.call("/send-message", {"from_id": client.peer_id, "to_id": "bob", "text": "me"})
    with anyio.fail_after(BOUND):
        text, sender = await arrived
    assert (text, sender["host"], link.epoch, link.leader) == ("me", "mac", 1, None)
    there.revoke()
    with anyio.fail_after(BOUND):
        await link.ended()


async def test_a_session_says_nothing_to_another_certificate(there):
    said = []
    with listening(impostor(said)) as address, pytest.raises(PinChangedError):
        await connect(replace(there.joined, address=address))
    assert said in ([], [b""])


async def test_a_session_that_is_not_let_in_is_told_so(there):
    there.revoke()
    with pytest.raises(NotOursError):
        await connect(there.joined)


async def test_a_session_meets_no_tls(there):
    with (
        listening(lambda taken: taken.sendall(b"220 mail\r\n" * 9)) as address,
        pytest.raises(NoBrokerError, match="does not speak TLS"),
    ):
        await connect(replace(there.joined, address=address))


# Joining


def test_joining_makes_a_token_that_only_this_machine_knows(there):
    found = joining.join(there.invite("vm"), time.time)
    assert (found.name, found.address) == ("vm", there.joined.address)
    (vm,) = [each for each in there.broker.broker.machines if each.name == "vm"]
    assert vm.token_hash == hashlib.sha256(found.token.encode()).hexdigest()
    with http(found) as way:
        assert way.proven
    assert found.token not in repr(found)


def test_the_addresses_of_an_invite_are_tried_one_after_the_other(there):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        invited = there.invite()
        more = replace(invited, addresses=(Address(*free.getsockname()), *invited.addresses))
        assert joining.join(more, time.time).address == invited.addresses[0]


def test_an_invite_that_leads_nowhere_names_every_try(there):
    with socket.socket() as free, listening(lambda taken: taken.recv(1)) as silent:
        free.bind(("127.0.0.1", 0))
        places = (Address(*free.getsockname()), silent)
        with pytest.raises(NoBrokerError, match=r"refused; .*(hung up|reset)") as refused:
            joining.join(replace(there.invite(), addresses=places), time.time)
    assert "--address" in refused.value.remedy


def test_a_broker_that_does_not_answer_in_time_is_passed_over(there, monkeypatch):
    monkeypatch.setattr(joining, "WITHIN", 0.05)
    with (
        listening(lambda taken: taken.recv(1 << 20) and taken.recv(1)) as silent,
        pytest.raises(NoBrokerError, match="no answer"),
    ):
        joining.join(replace(there.invite(), addresses=(silent,)), time.time)


def test_an_address_that_is_somebody_elses_is_passed_over(there):
    said = []
    with listening(impostor(said)) as address:
        invited = there.invite()
        more = replace(invited, addresses=(address, *invited.addresses))
        assert joining.join(more, time.time).address == invited.addresses[0]
        with pytest.raises(PinChangedError):
            joining.join(replace(there.invite("other"), addresses=(address,)), time.time)
    assert set(said) <= {b""}


def test_an_invite_is_told_why_it_is_refused(there):
    invited = there.invite()
    there.revoke("vm")
    with pytest.raises(RefusedError, match="not known here"):
        joining.join(invited, time.time)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ok":true}'])
def test_an_answer_that_nobody_understands_is_told(there, body):
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    with listening(impostor([], answer=answer % (len(body), body))) as address:
        invited = replace(there.invite(), addresses=(address,), pin=shown(1).pin)
        with pytest.raises(NoBrokerError, match="same version"):
            joining.join(invited, time.time)


# What is kept

INVITED = Invitation(
    addresses=(Address("10.0.0.1", 7899), Address("fd00::1", 1)), pin=bytes(32), code="c" * 22
)


def test_what_was_joined_is_found_by_each_of_its_addresses(tmp_path):
    folder = str(tmp_path / "state")
    joined.keep(folder, INVITED, token="t1", name="mac")
    for where in ("10.0.0.1:7899", "[fd00::1]:1"):
        found = joined.find(folder, where, time.time)
        assert (found.token, found.name, found.pin) == ("t1", "mac", bytes(32))
    joined.keep(folder, replace(INVITED, addresses=INVITED.addresses[:1]), token="t2", name="vm")
    assert joined.find(folder, "10.0.0.1:7899", time.time).token == "t2"
    assert joined.find(folder, "[fd00::1]:1", time.time).token == "t1"
    assert os.stat(os.path.join(folder, joined.FILE)).st_mode & 0o777 == 0o600


def test_what_was_not_joined_is_not_found(tmp_path):
    with pytest.raises(NotJoinedError, match=r"has not joined a broker at 10\.0\.0\.1:7899"):
        joined.find(str(tmp_path / "none"), "10.0.0.1:7899", time.time)
    joined.keep(str(tmp_path), INVITED, token="t", name="mac")
    with pytest.raises(NotJoinedError, match=r"It has joined 10\.0\.0\.1:7899, \[fd00::1\]:1"):
        joined.find(str(tmp_path), "10.0.0.2:7899", time.time)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"a:1": 5}', '{"a:1": {"pin": "00", "token": "t", "name": "n"}}', '{"a:1": {}}',
     '{"a:1": {"pin": "zz", "token": "t", "name": "n"}}'],
)  # fmt: skip
def test_a_damaged_record_is_told(tmp_path, content):
    path = tmp_path / joined.FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="join the brokers on other machines anew"):
        joined.find(str(tmp_path), "a:1", time.time)


def test_a_record_that_others_may_read_is_not_used(tmp_path):
    joined.keep(str(tmp_path), INVITED, token="t", name="mac")
    (tmp_path / joined.FILE).chmod(0o644)
    with pytest.raises(StoreError, match="Others may read"):
        joined.find(str(tmp_path), "10.0.0.1:7899", time.time)
    assert json.loads((tmp_path / joined.FILE).read_text())


def test_a_link_that_cannot_be_made_leaves_no_socket_open(there):
    with pytest.raises(TimeoutError):
        RemoteLink(there.joined, deadline=time.monotonic() - 1)
