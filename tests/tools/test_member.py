"""What a session remembers of its mail."""

import pytest

from claude_peers.tools import member as members

pytestmark = pytest.mark.anyio


async def test_a_message_comes_for_the_first_time_once(member):
    assert [member.first_time("a"), member.first_time("a"), member.first_time("b")] == [
        True,
        False,
        True,
    ]


async def test_memory_is_bounded_and_forgets_the_oldest(member, monkeypatch):
    monkeypatch.setattr(members, "REMEMBERED", 3)
    for uid in "abcd":
        assert member.first_time(uid)
    assert not member.first_time("b")
    assert member.first_time("a")
    assert len(member._known) == 3


async def test_what_was_shown_whole_is_acknowledged(member):
    member.unread |= {1, 2, 3}
    member.pushed |= {1, 2}
    member.in_hand |= {1, 2}
    assert member.shown((1, 2), whole=True) == (
        "/ack-messages",
        {"id": "me000000", "message_ids": [1, 2], "via": "check_messages"},
    )
    assert (member.unread, member.pushed, member.in_hand) == ({3}, set(), set())


async def test_what_was_not_is_returned_and_stays_unread(member):
    member.unread |= {1}
    member.in_hand |= {1}
    assert member.shown((1,), whole=False) == (
        "/release-messages",
        {"id": "me000000", "message_ids": [1], "via": "check_messages"},
    )
    assert (member.unread, member.in_hand) == ({1}, set())


async def test_giving_nothing_back_asks_nothing(member, client):
    member.give_back([])
    assert not member._returning
    assert client.asked == []
