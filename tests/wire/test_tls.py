"""TLS without a wire: what is said to whom, and what is not."""

import ssl

import pytest
from support.tls import ends, shake_hands, shown

from claude_peers.core.errors import NoBrokerError
from claude_peers.wire.tls import PinChangedError, Tls, client_context, server_context


@pytest.fixture
def pair():
    client, server = ends()
    shake_hands(client, server)
    return client, server


def test_both_ends_say_what_they_want(pair):
    client, server = pair
    assert server.receive(client.send(b"question")) == b"question"
    assert client.receive(server.send(b"answer")) == b"answer"


def test_what_is_long_arrives_whole(pair):
    client, server = pair
    text = bytes(range(256)) * 4096
    sent = client.send(text)
    half = len(sent) // 2
    assert server.receive(sent[:half]) + server.receive(sent[half:]) == text


def test_nothing_but_tls_1_3_is_spoken(pair):
    client, _ = pair
    assert client._object.version() == "TLSv1.3"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"(?i)protocol"):
        shake_hands(Tls(old, pin=shown().pin), Tls(server_context(shown().path)))


def test_no_tickets_follow_the_handshake(pair):
    client, server = pair
    assert client.pending() == server.pending() == b""


def test_both_ends_are_bound_to_this_connection_and_no_other(pair):
    client, server = pair
    assert client.binding == server.binding
    others = ends()
    shake_hands(*others)
    assert others[0].binding != client.binding


def test_a_library_that_does_not_tell_the_binding_is_refused(pair):
    client, _ = pair

    class Silent:
        def get_channel_binding(self, _kind):
            return None

    client._object = Silent()
    with pytest.raises(OSError, match="does not tell what a connection is known by"):
        _ = client.binding


def test_before_the_handshake_nothing_can_be_said():
    client, _ = ends()
    client.begin()
    with pytest.raises(OSError, match="before the other end is known"):
        client.send(b"secret")
    assert client.end() == b""


def test_another_certificate_gets_nothing_not_even_the_end_of_the_handshake():
    client, server = ends(pin=shown(1).pin)
    server.receive(client.begin())
    with pytest.raises(PinChangedError, match="there:1 shows another certificate") as refused:
        client.receive(server.pending())
    assert isinstance(refused.value, NoBrokerError)
    assert refused.value.code == "pin_changed"
    assert client.pending() == b""
    with pytest.raises(OSError, match="before the other end is known"):
        client.send(b"secret")
    assert not server.established


def test_what_is_no_tls_is_an_error():
    client, server = ends()
    client.begin()
    for end in (client, server):
        with pytest.raises(OSError, match=r"(?i)wrong version|record|packet"):
            end.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(64))


def test_what_was_tampered_with_is_an_error(pair):
    client, server = pair
    sent = bytearray(client.send(b"pay one"))
    sent[-1] ^= 1
    with pytest.raises(OSError, match=r"(?i)mac|decrypt"):
        server.receive(bytes(sent))


def test_the_end_is_said_once_and_understood(pair):
    client, server = pair
    last = client.send(b"last words") + client.end()
    assert server.receive(last) == b"last words"
    assert server.ended
    assert client.end() == b""


def test_who_has_said_the_end_hears_nothing_more(pair):
    client, server = pair
    server.end()
    assert server.receive(client.send(b"still sending")) == b""


def test_a_client_takes_any_certificate_that_is_the_pinned_one():
    assert client_context().verify_mode is ssl.CERT_NONE
