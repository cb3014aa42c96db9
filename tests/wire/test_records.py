"""Request bodies, and peers and messages as the JSON that travels."""

from dataclasses import replace

import pytest

from claude_peers.core.errors import BadRequestError
from claude_peers.core.models import Message, Peer, PeerId, Process, Trust
from claude_peers.wire import records
from claude_peers.wire.codec import decode, dumps
from claude_peers.wire.records import kept_view, message_view, peer_view

PEER = Peer(
    id=PeerId("abcd1234"),
    name="main",
    process=Process(pid=7, started="1"),
    pid=7,
    boot="boot",
    host="here",
    cwd="/r",
    git_root="/r",
    repo="/r/.git",
    tty="pts/1",
    summary="works",
    client="claude-code",
    route="channel",
    trust=Trust.PROCESS,
    token_hash="secret-hash",
    keys=("resume:1",),
    registered_at="2026-01-01T00:00:00.000Z",
    last_seen="2026-01-01T00:00:01.000Z",
)
MESSAGE = Message(
    id=5,
    uid="u5",
    from_id="abcd1234",
    to_id=PeerId("efgh5678"),
    text="hi",
    sent_at="2026-01-01T00:00:00.000Z",
)


def test_a_peer_travels_with_upstreams_fields_first_and_ours_after():
    assert list(peer_view(PEER).items())[:8] == [
        ("id", "abcd1234"),
        ("pid", 7),
        ("cwd", "/r"),
        ("git_root", "/r"),
        ("tty", "pts/1"),
        ("summary", "works"),
        ("registered_at", "2026-01-01T00:00:00.000Z"),
        ("last_seen", "2026-01-01T00:00:01.000Z"),
    ]


def test_a_peer_travels_with_name_host_client_route_and_trust():
    view = peer_view(PEER)
    assert (view["name"], view["hostname"], view["agent_type"]) == ("main", "here", "claude-code")
    assert (view["route"], view["verified"]) == ("channel", "process")


def test_nothing_by_which_a_peer_could_be_impersonated_travels():
    seen = dumps(peer_view(PEER))
    assert b"secret-hash" not in seen and b"resume:1" not in seen


def test_a_message_travels_with_upstreams_fields_first_and_ours_after():
    assert list(message_view(MESSAGE).items()) == [
        ("id", 5),
        ("from_id", "abcd1234"),
        ("to_id", "efgh5678"),
        ("text", "hi"),
        ("sent_at", "2026-01-01T00:00:00.000Z"),
        ("delivered", 0),
        ("topic", None),
        ("uid", "u5"),
        ("verified", False),
    ]


def test_a_message_says_what_it_answers_and_how_often_it_came_only_if_so():
    again = Message(
        id=6, uid="u", from_id="a", to_id=PeerId("b"), text="", sent_at="", reply_to=5, deliveries=2
    )
    assert message_view(again)["reply_to"] == 5
    assert message_view(again)["redelivered"] == 2


def test_who_keeps_a_message_is_told_how_long_it_is_good_for():
    assert kept_view(replace(MESSAGE, expires_at=9.5)) == message_view(MESSAGE) | {
        "expires_at": 9.5
    }


@pytest.mark.parametrize(
    ("record", "body", "missing"),
    [
        (records.SetSummaryRequest, {"id": "a"}, "summary"),
        (records.SendMessageRequest, {"from_id": "a", "text": "x"}, "to_id"),
        (records.SendMessageRequest, {"from_id": "a", "to_id": "b"}, "text"),
        (records.SendMessageRequest, {"to_id": "b", "text": "x"}, "from_id"),
        (records.MessagesRequest, {"id": "a"}, "message_ids"),
    ],
)
def test_a_request_without_what_it_is_about_is_refused(record, body, missing):
    with pytest.raises(BadRequestError, match=f"`{missing}` is missing"):
        decode(record, body)


@pytest.mark.parametrize(
    "record",
    [
        records.RegisterRequest,
        records.PeerRequest,
        records.ListPeersRequest,
        records.PollRequest,
        records.StepDownRequest,
    ],
)
def test_a_request_that_needs_nothing_may_be_empty(record):
    assert decode(record, {}) == record()


def test_upstreams_registration_is_taken_as_it_is():
    body = {"pid": 7, "cwd": "/r", "git_root": None, "tty": None, "summary": ""}
    assert decode(records.RegisterRequest, body) == records.RegisterRequest(pid=7, cwd="/r")


def test_agentmeshs_registration_is_taken_with_its_own_fields_ignored():
    body = {"pid": 7, "hostname": "h", "agent_type": "hermes", "transport": {"type": "poll"}}
    taken = decode(records.RegisterRequest, body)
    assert (taken.pid, taken.hostname, taken.agent_type) == (7, "h", "hermes")
