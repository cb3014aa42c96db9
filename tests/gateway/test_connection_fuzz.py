"""Whatever bytes come over a connection, the broker answers well, or hangs up, and stays."""

import contextlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.inproc import LiveWire, Wire, head, post, running

from claude_peers.gateway.errors import REASONS
from claude_peers.wire import frames

ANSWER = re.compile(rb"HTTP/1\.1 (?P<status>\d{3}) [^\r\n]*\r\n(?P<head>(?:[^\r\n]+\r\n)*)\r\n")
LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)
PIECES = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"HEAD ", b"/", b"/health", b"/live", b"/ledger", b"*", b"?x=1"),
        *(b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b"{}", b"[]"),
        *(b"Host: 127.0.0.1:PORT\r\n", b"Content-Type: application/json\r\n", b"0\r\n\r\n"),
        *(b"Content-Length: 2\r\n", b"Content-Length: 99999999\r\n", b"Content-Length: -1\r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: Upgrade\r\n",
            b"Expect: 100-continue\r\n",
        ),
        *(b"Upgrade: claude-peers/1\r\n", b"Authorization: Bearer x\r\n", b"\xff\xfe", b"\0"),
        *(b"X-Claude-Peers-Nonce: n\r\n", b"X-Claude-Peers-Auth: 00\r\n", b"PRI * HTTP/2.0\r\n"),
    ]
)
BYTES = st.lists(PIECES | st.binary(max_size=6), max_size=16).map(b"".join)
TOKEN = st.text("abcXYZ019-_.!#$%&'*+^`|~", min_size=1, max_size=12)
VALUE = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
GOOD_FRAMES = st.sampled_from(["/list-peers", "/ledger", "/peek-messages", "/nothing", ""])
BAD_FRAMES = st.sampled_from(
    [b"{", b"[]", b"null", b'{"id":1}', b'{"id":"1","op":"/ledger"}', b'{"id":1,"op":[]}', b"\xff"]
) | st.binary(min_size=1, max_size=8).filter(lambda line: b"\n" not in line and line.strip())


@pytest.fixture(scope="module")
def broker():
    with running() as serving:  # at its end no fault may have been seen, and the ledger balances
        yield serving


def answers(stream):
    """Yield the status of each answer in a stream; fail if it is anything else."""
    while stream:
        found = ANSWER.match(stream)
        assert found, stream[:200]
        length = LENGTH.search(found["head"])
        body, stream = stream[found.end() :], b""
        status = int(found["status"])
        if status == 101:  # what follows are frames
            return
        if length is not None:
            size = int(length[1])
            body, stream = (b"", body) if body.startswith(b"HTTP/") else (body[:size], body[size:])
        else:
            body, stream = b"", body
        yield status, body


@given(data=BYTES, cut=st.integers(0, 60))
@settings(max_examples=150)
def test_any_bytes_are_answered_in_http_or_not_at_all(broker, data, cut):
    data = data.replace(b"PORT", str(broker.port).encode())
    with Wire(broker.port) as wire:
        for part in (data[:cut], data[cut:], b"\r\n\r\n"):
            wire.send(part)
        wire.leave("half")
        try:
            came = wire.rest()
        except ConnectionError:
            came = b""  # bytes were left unread behind a refusal
    for status, body in answers(came):
        assert status in REASONS or status == 100
        assert status != 500, body
    is_there(broker)


@given(headers=st.dictionaries(TOKEN, VALUE, max_size=5), path=st.text("/abc.?%-", max_size=8))
@settings(max_examples=150)
def test_any_headers_of_a_well_framed_request_are_answered(broker, headers, path):
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items())
    start = head(broker.port, "GET", f"/{path}")[:-2]
    with Wire(broker.port) as wire:
        wire.send(start + lines + b"\r\n")
        status, told, body = wire.answer()
    assert status in REASONS and status != 500, body
    assert told["cache-control"] == "no-store"
    if status >= 400:
        assert json.loads(body)["remedy"].endswith(".")


@given(
    lines=st.lists(GOOD_FRAMES, max_size=8),
    bad=st.none() | BAD_FRAMES,
    cuts=st.lists(st.integers(1, 40), max_size=6),
)
@settings(max_examples=60)
def test_on_a_live_connection_each_request_is_answered_once_until_one_is_none(
    broker, lines, bad, cuts
):
    wanted = list(enumerate(lines, 100))
    stream = b"\n".join(frames.request(number, path, {}) for number, path in wanted)
    if bad is not None:
        stream += bad + b"\n" + frames.request(1, "/ledger", {})
    with LiveWire(broker.port) as live:
        live.join()
        with contextlib.suppress(ConnectionError):  # it may hang up in between
            for cut in cuts:
                live.send(stream[:cut])
                stream = stream[cut:]
            live.send(stream + (frames.request(9, "/ledger", {}) if bad is None else b""))
        told = came(live, last=9)
    numbers = [each["re"] for each in told if "re" in each]
    if bad is None:
        assert sorted(numbers) == sorted([9, *(number for number, _ in wanted)])
    else:
        assert 1 not in numbers  # behind what is no request nothing is served
        assert len(numbers) == len(set(numbers))
    assert all(each["status"] < 500 for each in told if "re" in each)
    is_there(broker)


def came(live, *, last):
    """Return the frames up to the answer `last`, or until the broker hangs up."""
    told = []
    try:
        while not told or told[-1].get("re") != last:
            told.append(live.read())
    except (EOFError, ConnectionError):
        pass  # it has hung up
    return told


def is_there(broker):
    """Fail unless the broker answers somebody else."""
    with Wire(broker.port) as other:
        other.send(post(broker.port, "/ledger", {}))
        status, _, body = other.answer()
    assert (status, json.loads(body)["balanced"]) == (200, True)
