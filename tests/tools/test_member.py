"""What a session remembers of its mail."""

import asyncio

import pytest

from claude_peers.core.errors import NoBrokerError
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


async def test_what_another_result_took_while_the_broker_was_asked_is_not_shown_twice(
    member, client
):
    client.arrive("one", "two", "three")
    for view in client.queued.values():
        member.arrive(view, None)
    client.gate.clear()
    taking = asyncio.create_task(member.take())
    await client.heard("/poll-messages")
    member.in_hand.add(1)  # another tool's result brings it
    member.in_hand.add(2)
    member.shown((2,), "piggyback", whole=True)  # and another has brought it
    client.gate.set()
    assert [view["id"] for view in await taking] == [3]
    assert member.unread == {1, 3}


async def test_an_answer_shows_that_the_message_was_read(member, client):
    client.arrive("one")
    member.arrive(client.queued[1], None)
    await member.send("abcd1234", "back", reply_to=1)
    assert member.unread == set()
    assert member.pending() == []


async def test_an_answer_that_was_not_sent_shows_nothing(member, client):
    client.arrive("one")
    member.arrive(client.queued[1], None)
    client.broken = True
    with pytest.raises(NoBrokerError):
        await member.send("abcd1234", "back", reply_to=1)
    assert member.unread == {1}


async def test_everybody_who_waits_learns_of_an_arrival(member, client):
    waiting = [asyncio.create_task(member.arrival()) for _ in range(2)]
    await asyncio.sleep(0)
    assert member.waiting
    client.arrive("one")
    member.arrive(client.queued[1], None)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert not member.waiting
