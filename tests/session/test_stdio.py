"""Lines go in and out whatever the descriptors are, and never block."""

import asyncio
import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from claude_peers.session import lines, stdio
from claude_peers.session.lines import Splitter
from claude_peers.session.stdio import Input, Output, waitable

pytestmark = pytest.mark.anyio


# Splitting


def test_lines_are_cut_wherever_the_chunks_end():
    splitter = Splitter()
    for chunk in (b"a", b"b\nc\n", b"\n", b"d\r", b"\ne"):
        splitter.feed(chunk)
    assert [*splitter.lines] == [b"ab", b"c", b"", b"d\r"]
    splitter.end()
    splitter.end()
    assert splitter.lines[-1] == b"e"
    assert len(splitter.lines) == 5


def test_a_line_that_is_too_long_is_thrown_away_while_it_comes():
    splitter = Splitter(longest=4)
    for chunk in (b"ab", b"cde", b"fgh" * 9, b"i\nok\nlong!", b"!\nabcd\n"):
        splitter.feed(chunk)
        assert len(splitter._rest) <= 4
    assert [*splitter.lines] == [b"ok", b"abcd"]
    assert [line.head + b"..." + line.tail for line in splitter.oversized] == [
        b"abcde...abcde" + b"fgh" * 9 + b"i",
        b"long!...long!!",
    ]


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        (b'{"jsonrpc": "2.0", "id": 7, "method": "m", "params": {"x": "LONG"}}', 7),
        (b'{"id":"a-b","jsonrpc":"2.0","method":"m","params":{"x":"LONG"}}', "a-b"),
        (b'{"method":"m","params":{"x":"LONG"},"jsonrpc":"2.0","id":-8}\r', -8),
        (b'{"method":"m","params":{"x":"LONG"},"id":9,"jsonrpc":"2.0"} ', 9),
        (b'{"method":"m","params":{"id":1,"x":"LONG"},"jsonrpc":"2.0"}', None),
        (b'{"method":"m","params":{"x":"LONG","id":1}}', None),
        (b'{"method":"m","params":{"x":"LONG \\"id\\":1}"}}', None),
        (b'{"method":"m","params":{"x":"LONG"},"id":null}', None),
        (b"LONG", None),
    ],
)
def test_a_line_that_is_too_long_still_tells_which_request_it_was(line, request_id):
    splitter = Splitter(longest=200)
    for byte in line.replace(b"LONG", b"x" * 2000) + b"\n":
        splitter.feed(bytes([byte]))
    (discarded,) = splitter.oversized
    assert discarded.request_id == request_id
    assert len(discarded.head + discarded.tail) <= 2 * lines.EDGE


def test_a_long_line_at_the_end_leaves_nothing():
    splitter = Splitter(longest=4)
    splitter.feed(b"ok\nabcdef")
    splitter.end()
    assert [*splitter.lines] == [b"ok"]


# Choosing how to wait


def test_pipes_and_sockets_are_waited_for_and_the_rest_gets_a_thread():
    assert waitable(stat.S_IFIFO, platform="linux")
    assert waitable(stat.S_IFSOCK, platform="darwin")
    assert not waitable(stat.S_IFREG, platform="linux")
    assert not waitable(stat.S_IFCHR, platform="linux")
    assert not waitable(stat.S_IFIFO, platform="win32")


# Reading


class Reader:
    """An `Input` and what it said."""

    def __init__(self, fd, **more):
        self.lines, self.oversized, self.stop_at = [], [], None
        self.changed, self.over = asyncio.Event(), asyncio.Event()
        self.input = Input(
            fd,
            self.receive,
            ended=self.end,
            oversized=self.long,
            paused=lambda: self.stop_at is not None and len(self.lines) >= self.stop_at,
            **more,
        )

    def receive(self, line):
        self.lines.append(line)
        self.changed.set()

    def long(self, line):
        self.oversized.append(line)
        self.changed.set()

    def end(self):
        assert not self.over.is_set()
        self.over.set()
        self.changed.set()

    async def until(self, probe):
        with anyio.fail_after(10):
            while not probe():
                self.changed.clear()
                await self.changed.wait()


def _pipe():
    return os.pipe()


def _socketpair():
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("pair", [_pipe, _socketpair])
async def test_lines_arrive_as_they_are_written_and_then_the_end(pair):
    reading, writing = pair()
    reader = Reader(reading, initial=b"first\nsec")
    reader.input.start()
    assert reader.lines == [b"first"]
    os.write(writing, b"ond\nthird\nlast")
    await reader.until(lambda: len(reader.lines) == 3)
    os.close(writing)
    await reader.until(reader.over.is_set)
    assert reader.lines == [b"first", b"second", b"third", b"last"]
    os.close(reading)


@pytest.mark.parametrize("text", [b"", b"one\ntwo\nthree", b"x" * stdio.CHUNK + b"\ny\n"])
async def test_a_file_is_read_to_its_end(tmp_path, text):
    path = tmp_path / "input"
    path.write_bytes(text)
    fd = os.open(path, os.O_RDONLY)
    reader = Reader(fd, initial=b"zero\n")
    reader.input.start()
    await reader.until(reader.over.is_set)
    assert reader.lines == [b"zero", *text.splitlines()]
    os.close(fd)


async def test_no_input_at_all_ends_at_once():
    fd = os.open(os.devnull, os.O_RDONLY)
    reader = Reader(fd)
    reader.input.start()
    await reader.until(reader.over.is_set)
    assert reader.lines == []
    os.close(fd)


async def test_a_terminal_stays_as_it_is():
    ours, theirs = pty.openpty()
    reader = Reader(theirs)
    reader.input.start()
    os.write(ours, b"typed\n")
    await reader.until(lambda: reader.lines)
    assert reader.lines == [b"typed"]
    assert os.get_blocking(theirs)
    os.write(ours, b"\x04")  # end of file, as a person types it
    await reader.until(reader.over.is_set)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_a_paused_reader_hands_out_nothing_until_resumed(kind, tmp_path):
    if kind == "pipe":
        fd, writing = os.pipe()
        os.write(writing, b"1\n2\n3\n")
        os.close(writing)
    else:
        (tmp_path / "input").write_bytes(b"1\n2\n3\n")
        fd = os.open(tmp_path / "input", os.O_RDONLY)
    reader = Reader(fd)
    reader.stop_at = 2
    reader.input.start()
    await reader.until(lambda: len(reader.lines) == 2)
    reader.input.resume()
    assert reader.lines == [b"1", b"2"]
    reader.stop_at = None
    reader.input.resume()
    reader.input.resume()
    await reader.until(reader.over.is_set)
    assert reader.lines == [b"1", b"2", b"3"]
    os.close(fd)


async def test_resuming_from_within_a_line_does_not_reorder():
    reading, writing = os.pipe()
    reader = Reader(reading)
    receive = reader.receive

    def again(line):
        reader.input.resume()
        receive(line)

    reader.input._receive = again
    reader.input.start()
    os.write(writing, b"1\n2\n3\n")
    await reader.until(lambda: len(reader.lines) == 3)
    assert reader.lines == [b"1", b"2", b"3"]
    reader.input.close()
    os.close(reading)
    os.close(writing)


async def test_a_line_over_the_limit_is_reported_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(lines.Splitter.__init__, "__defaults__", (10,))
    reading, writing = os.pipe()
    reader = Reader(reading)
    reader.input.start()
    os.write(writing, b"x" * 50 + b"\nok\n")
    await reader.until(lambda: reader.lines and reader.oversized)
    assert reader.lines == [b"ok"]
    assert len(reader.oversized) == 1
    reader.input.close()
    os.close(reading)
    os.close(writing)


async def test_a_reset_connection_is_the_end(monkeypatch):
    reading, writing = os.pipe()
    reader = Reader(reading)
    reader.input.start()

    def reset(_fd, _most):
        raise ConnectionResetError

    def nothing_yet(_fd, _most):
        raise BlockingIOError

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", nothing_yet)
        reader.input._readable()
        assert not reader.over.is_set()
        patch.setattr(os, "read", reset)
        reader.input._readable()
    assert reader.over.is_set()
    os.close(reading)
    os.close(writing)


async def test_a_closed_input_calls_nobody(tmp_path):
    (tmp_path / "input").write_bytes(b"1\n")
    fd = os.open(tmp_path / "input", os.O_RDONLY)
    reader = Reader(fd)
    reader.input.start()
    reader.input.close()
    thread = reader.input._thread
    await asyncio.to_thread(thread.join, 10)
    await asyncio.sleep(0)
    assert not thread.is_alive()
    assert reader.lines == []
    os.close(fd)


async def test_a_file_that_cannot_be_read_is_the_end(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)  # a directory: reading it fails
    reader = Reader(fd)
    reader.input.start()
    await reader.until(reader.over.is_set)
    os.close(fd)


# Writing


@pytest.mark.parametrize("pair", [_pipe, _socketpair])
async def test_a_line_is_with_the_system_before_write_returns(pair):
    reading, writing = pair()
    output, fates = Output(writing), []
    assert output.write(b"one", fates.append)
    assert fates == [True]
    assert os.read(reading, 99) == b"one\n"
    output.close()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("pair", [_pipe, _socketpair])
async def test_what_does_not_fit_waits_and_keeps_its_order(pair):
    reading, writing = pair()
    output, fates = Output(writing), []
    big = b"x" * 3_000_000
    output.write(big, lambda whole: fates.append(("big", whole)))
    output.write(b"small", lambda whole: fates.append(("small", whole)))
    output.write(b"silent")
    assert fates == []
    got = bytearray()

    def read():
        while not got.endswith(b"silent\n"):
            got.extend(os.read(reading, 1 << 20))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert await output.drain(10)
    await asyncio.to_thread(thread.join, 10)
    assert bytes(got) == big + b"\nsmall\nsilent\n"
    assert fates == [("big", True), ("small", True)]
    assert await output.drain(10)
    os.close(reading)
    os.close(writing)


async def test_only_droppable_lines_are_refused_while_much_waits():
    reading, writing = os.pipe()
    output, fates = Output(writing), []
    output.write(b"x" * 1_000_000)
    for _ in range(stdio.DROP_LINES):
        assert output.write(b"push", droppable=True)
    assert not output.write(b"push", fates.append, droppable=True)
    assert fates == [False]
    assert output.write(b"answer", fates.append)
    assert fates == [False]
    output.close()
    assert fates == [False, False]
    os.close(reading)
    os.close(writing)


async def test_many_bytes_are_as_bad_as_many_lines():
    reading, writing = os.pipe()
    output = Output(writing)
    output.write(b"x" * stdio.DROP_BYTES)
    output.write(b"x" * 100_000)
    assert not output.write(b"push", droppable=True)
    assert not await output.drain(0.001)
    output.close()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("pair", [_pipe, _socketpair])
async def test_a_client_that_is_gone_gets_nothing_and_everybody_learns_it(pair):
    reading, writing = pair()
    output, fates = Output(writing), []
    output.write(b"x" * 1_000_000, fates.append)
    output.write(b"y", fates.append)
    os.close(reading)
    assert not await output.drain(10)
    assert fates == [False, False]
    assert not output.write(b"z", fates.append)
    assert not output.write(b"z")
    assert fates == [False] * 3
    output.close()
    os.close(writing)


async def test_writing_from_within_done_keeps_the_order():
    reading, writing = os.pipe()
    output = Output(writing)
    output.write(b"1", lambda _whole: output.write(b"2", lambda _whole: output.write(b"3")))
    assert os.read(reading, 99) == b"1\n2\n3\n"
    output.close()
    os.close(reading)
    os.close(writing)


async def test_a_file_is_written_by_a_thread(tmp_path):
    fd = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    output, fates = Output(fd), []
    for number in range(100):
        assert output.write(b"%d" % number, fates.append)
    assert await output.drain(10)
    assert fates == [True] * 100
    assert (tmp_path / "output").read_bytes() == b"".join(b"%d\n" % n for n in range(100))
    output.close()
    output._wrote()
    os.close(fd)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
async def test_a_full_disk_is_a_broken_output():
    fd = os.open("/dev/full", os.O_WRONLY)
    output, fates = Output(fd), []
    output.write(b"1", fates.append)
    output.write(b"2", fates.append)
    assert not await output.drain(10)
    assert fates == [False, False]
    os.close(fd)


# The process's own streams


PROGRAM = """
import asyncio, os, subprocess, sys
sys.path[:0] = {path!r}
from claude_peers.session.stdio import Input, Output, take_over

reading, writing = take_over()

async def main():
    print("stray", flush=True)
    subprocess.run([sys.executable, "-c", "print(input())"], stderr=subprocess.DEVNULL)
    over = asyncio.Event()
    output = Output(writing)
    Input(reading, output.write, ended=over.set).start()
    await over.wait()
    await output.drain(5)
    os.write(2, b"descriptors %d %d" % (reading, writing))

asyncio.run(main())
"""


def echoed(**streams):
    command = [sys.executable, "-c", PROGRAM.format(path=sys.path)]
    return subprocess.run(command, timeout=30, check=True, **streams)


def test_stray_prints_do_not_reach_the_client():
    ran = echoed(input=b"one\ntwo\n", capture_output=True)
    assert ran.stdout == b"one\ntwo\n"
    assert b"stray" in ran.stderr


def test_files_for_both_streams_work(tmp_path):
    (tmp_path / "in").write_bytes(b"one\ntwo")
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
        echoed(stdin=given, stdout=taken, stderr=subprocess.DEVNULL)
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


def test_no_streams_at_all_is_an_empty_conversation():
    def close():
        for fd in (0, 1):
            os.close(fd)

    ran = echoed(preexec_fn=close, stderr=subprocess.PIPE)
    first, second = map(int, ran.stderr.split(b"descriptors ")[1].split())
    assert min(first, second) > 2


def test_without_stderr_strays_vanish():
    ran = echoed(input=b"one\n", stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert ran.stdout == b"one\n"
