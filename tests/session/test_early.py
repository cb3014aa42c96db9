"""The first stage of a session: what it answers, and what it leaves to the second."""

import json
import os

import pytest

from claude_peers.session import early
from claude_peers.session.early import Early, greet
from claude_peers.session.handshake import initialize_result

HELLO = {"protocolVersion": "2025-06-18", "clientInfo": {"name": "x", "version": "1"}}


def line(method, key=None, params=None):
    body = {"jsonrpc": "2.0", "method": method}
    if key is not None:
        body["id"] = key
    if params is not None:
        body["params"] = params
    return json.dumps(body).encode() + b"\n"


INITIALIZE = line("initialize", 1, HELLO)
PROBE = line("server/discover", "probe")


class Wire:
    """A client that wrote everything beforehand, in pieces, and hung up."""

    def __init__(self, monkeypatch) -> None:
        self.pieces: list[bytes] = []
        self.reads = 0
        self.said, self.heard = os.pipe()
        monkeypatch.setattr(early, "_read", self.read)

    def read(self, _fd):
        self.reads += 1
        return self.pieces.pop(0) if self.pieces else b""

    def greet(self, *pieces):
        self.pieces = [*pieces]
        return greet(fd_in=-1, fd_out=self.heard)

    def answers(self):
        os.close(self.heard)
        with open(self.said, "rb") as said:
            return [json.loads(each) for each in said.read().splitlines()]


@pytest.fixture
def wire(monkeypatch):
    return Wire(monkeypatch)


@pytest.mark.bug("U8")
def test_initialize_is_answered_and_its_params_are_kept(wire):
    assert wire.greet(INITIALIZE) == Early(b"", HELLO)
    assert wire.answers() == [{"jsonrpc": "2.0", "id": 1, "result": initialize_result(HELLO)}]
    assert wire.reads == 1


def test_however_the_bytes_are_cut_it_is_the_same(wire):
    assert wire.greet(*(bytes([each]) for each in INITIALIZE), b"rest") == Early(b"", HELLO)
    assert len(wire.answers()) == 1


def test_what_was_read_beyond_initialize_is_left(wire):
    more = line("notifications/initialized") + line("tools/list", 2)[:9]
    assert wire.greet(INITIALIZE + more) == Early(more, HELLO)


def test_a_probe_is_refused_and_initialize_answered(wire):
    left = wire.greet(PROBE, line("ping", 5), INITIALIZE)
    assert left == Early(b"", HELLO)
    refusal, pong, hello = wire.answers()
    assert refusal["error"]["code"] == -32601
    assert pong == {"jsonrpc": "2.0", "id": 5, "result": {}}
    assert hello["id"] == 1


def test_a_client_that_only_probes_leaves_nothing(wire):
    assert wire.greet(PROBE) == Early()
    assert len(wire.answers()) == 1


@pytest.mark.parametrize(
    "first",
    [
        b"\n",
        b"\r\n",
        b"oops\n",
        b"\xff\xfe\n",
        b"5\n",
        b"[" * 60_000 + b"\n",
        b"[" + INITIALIZE.strip() + b"]\n",
        line("tools/list", 1),
        line("notifications/initialized"),
        b'{"jsonrpc":"1.0","id":1,"method":"initialize"}\n',
    ],
)
def test_whatever_else_comes_first_is_left_with_all_that_follows(wire, first):
    assert wire.greet(first + INITIALIZE) == Early(first + INITIALIZE)
    assert wire.answers() == []


def test_a_client_that_is_gone_at_once_leaves_nothing(wire):
    assert wire.greet() == Early()
    assert wire.answers() == []


def test_half_a_line_is_left_as_it_is(wire):
    assert wire.greet(INITIALIZE[:20]) == Early(INITIALIZE[:20])


@pytest.mark.parametrize("params", [None, [], "x", 5])
def test_params_that_are_no_object_count_as_none(wire, params):
    assert wire.greet(line("initialize", 1, params)) == Early(b"", {})


def test_a_line_without_end_is_left_before_it_fills_the_memory(wire):
    piece = b"x" * 65536
    left = wire.greet(*[piece] * 100)
    assert len(left.rest) == early._MOST
    assert wire.reads == early._MOST // 65536


def test_carriage_returns_do_not_matter(wire):
    assert wire.greet(INITIALIZE.replace(b"\n", b"\r\n")) == Early(b"", HELLO)


# Descriptors


def test_a_pipe_is_read_and_answered():
    reading, writing = os.pipe()
    said, heard = os.pipe()
    os.write(writing, INITIALIZE)
    assert greet(reading, heard) == Early(b"", HELLO)
    assert json.loads(os.read(said, 65536))["id"] == 1
    for fd in (reading, writing, said, heard):
        os.close(fd)


def test_a_file_may_be_stdin(tmp_path):
    (tmp_path / "in").write_bytes(INITIALIZE + b"rest")
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    assert greet(fd, out) == Early(b"rest", HELLO)
    assert json.loads((tmp_path / "out").read_bytes())["id"] == 1
    os.close(fd)
    os.close(out)


def test_a_closed_stdin_is_the_end():
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    assert greet(reading, writing) == Early()


def test_a_client_that_reads_nothing_any_more_is_noticed_later():
    reading, writing = os.pipe()
    said, heard = os.pipe()
    os.close(said)
    os.write(writing, INITIALIZE)
    assert greet(reading, heard) == Early(b"", HELLO)
    for fd in (reading, writing, heard):
        os.close(fd)


def test_an_answer_that_goes_out_in_pieces_arrives_whole(monkeypatch):
    written = bytearray()

    def write(_fd, data):
        written.extend(bytes(data)[:7])
        return min(7, len(data))

    reading, writing = os.pipe()
    os.write(writing, INITIALIZE)
    monkeypatch.setattr(early.os, "write", write)
    greet(reading, -1)
    monkeypatch.undo()
    assert json.loads(written)["id"] == 1
    os.close(reading)
    os.close(writing)
