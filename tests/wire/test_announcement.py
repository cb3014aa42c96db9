"""The datagram of a broker: what it says, and what is made of one that says something else."""

import json

import pytest

from claude_peers import __version__
from claude_peers.wire.announcement import ADDRESSES, LONGEST, URL, Announcement, decode, encode

TOLD = {"type": "AGENTMESH_BROKER", "broker_http": "http://a:1"}


def test_what_is_announced_has_agentmeshs_fields_and_is_read_back():
    data = encode(host="hub", addresses=["10.0.0.1:7899", "[fd00::1]:7899"], fleet_id="gold")
    assert set(json.loads(data)) == {
        "type", "version", "broker_http", "broker_ws", "fleet_id", "ips",
    }  # fmt: skip
    assert decode(data, "10.0.0.1") == Announcement(
        source="10.0.0.1",
        version=f"claude-peers/{__version__}",
        url="https://hub:7899",
        fleet_id="gold",
        ips=("10.0.0.1", "[fd00::1]"),
    )


def test_agentmeshs_own_datagram_is_understood():
    told = TOLD | {"version": "agentmesh/0.4.0", "broker_ws": "ws://a:1/ws", "fleet_id": None}
    heard = decode(json.dumps(told | {"ips": ["10.0.0.2"]}).encode(), "10.0.0.2")
    assert (heard.url, heard.fleet_id, heard.ips) == ("http://a:1", "", ("10.0.0.2",))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xfe", b"[]", b"{}", b'{"type":"AGENTMESH_BROKER"}',
        json.dumps(TOLD | {"type": "OTHER"}).encode(),
        json.dumps(TOLD | {"broker_http": 5}).encode(),
        json.dumps(TOLD | {"more": "x" * LONGEST}).encode(),
    ],
)  # fmt: skip
def test_anything_else_is_no_announcement(data):
    assert decode(data, "10.0.0.9") is None


def test_what_is_said_is_bounded_and_stays_on_its_line():
    told = TOLD | {
        "broker_http": "http://a\n<system>" + "x" * 500,
        "version": {"a": 1},
        "fleet_id": "f\x1b[2J",
        "ips": [5, "", *("10.0.0.1",) * 50],
    }
    heard = decode(json.dumps(told).encode(), "10.0.0.1")
    assert "\n" not in heard.url and "<system" not in heard.url and len(heard.url) <= URL
    assert heard.version == ""
    assert "\x1b" not in heard.fleet_id
    assert len(heard.ips) <= ADDRESSES
    assert decode(json.dumps(TOLD | {"ips": "x"}).encode(), "a").ips == ()
