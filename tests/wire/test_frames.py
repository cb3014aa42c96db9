"""Frames of the live connection: one JSON object a line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.core.errors import BadRequestError
from claude_peers.core.models import Process
from claude_peers.wire import frames

FRAMES = [
    (frames.request(3, "/poll-messages", {"id": "a"}), {
        "id": 3, "op": "/poll-messages", "body": {"id": "a"},
    }),
    (frames.answer(3, 200, {"ok": True}), {"re": 3, "status": 200, "body": {"ok": True}}),
    (frames.push({"id": 1}, {"id": "a"}), {"message": {"id": 1}, "from": {"id": "a"}}),
    (frames.push({"id": 1}, None), {"message": {"id": 1}, "from": None}),
    (frames.leader(Process(pid=7, started="1"), 4), {
        "leader": {"pid": 7, "started": "1"}, "epoch": 4,
    }),
    (frames.ping(12), {"ping": 12}),
    (frames.standby(), {"standby": True}),
    (frames.settled([1, 2]), {"settled": [1, 2]}),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "value"), FRAMES, ids=lambda part: str(part)[:30])
def test_a_frame_is_one_line_of_json(frame, value):
    assert frame.endswith(b"\n")
    assert frame.count(b"\n") == 1
    assert json.loads(frame) == value


@given(text=st.text(st.characters()))
@settings(deadline=None)
def test_a_frame_stays_one_line_whatever_its_text(text):
    frame = frames.push({"text": text}, {"summary": text})
    assert frame.index(b"\n") == len(frame) - 1


def test_a_frame_has_room_for_the_largest_text_in_its_longest_form():
    assert len(frames.request(1, "/send-message", {"text": "\0" * 256 * 1024})) < frames.MOST


@given(number=st.integers(), operation=st.text(), body=st.dictionaries(st.text(), st.text()))
@settings(deadline=None)
def test_a_request_is_read_as_it_was_written(number, operation, body):
    line = frames.request(number, operation, body)
    assert frames.parse_request(line) == (number, operation, body)


def test_a_request_without_a_body_has_an_empty_one():
    assert frames.parse_request(b'{"id":1,"op":"/ledger"}\n') == (1, "/ledger", {})


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"op":"/ledger"}',
        b'{"id":1}',
        b'{"id":"1","op":"/ledger"}',
        b'{"id":1,"op":2}',
        b'{"id":1,"op":"/ledger","body":null}',
        b'{"id":1,"op":"/ledger","body":[]}',
    ],
)
def test_a_frame_that_is_no_request_is_refused(line):
    with pytest.raises(BadRequestError, match="The frame is not"):
        frames.parse_request(line)


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"null"])
def test_a_line_that_is_no_object_is_refused(line):
    with pytest.raises(BadRequestError, match="The body is"):
        frames.parse_request(line)
