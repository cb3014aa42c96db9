"""What a session remembers of its mail."""

import asyncio

import pytest

from claude_peers.client.client import Client
from claude_peers.client.errors import RefusedError
from claude_peers.core.errors import NoBrokerError, StoreError
from claude_peers.tools import member as members
from claude_peers.tools import repeats

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


def arrive(member, client, *texts, **more):
    """Let messages come that are pushed as well."""
    ids = client.arrive(*texts, **more)
    for number in ids:
        member.arrive(client.queued[number], None)
    return ids


@pytest.fixture
def at(member):
    """Return what sets the member's clock."""

    def at(seconds):
        member.wall = lambda: seconds

    at(100.0)
    return at


async def test_what_has_expired_is_neither_offered_nor_counted(member, client, at):
    arrive(member, client, "brief", expires_at=200.0)
    arrive(member, client, "lasting", expires_at=300.0)
    arrive(member, client, "of a broker that does not tell")
    at(199.0)
    assert [view["id"] for view, _ in member.pending()] == [1, 2, 3]
    at(200.0)
    assert [view["id"] for view, _ in member.pending()] == [2, 3]
    assert member.unread == {2, 3}


async def test_what_is_said_of_expiry_in_another_shape_ends_nothing_here(member, client, at):
    client.arrive("one", expires_at="2026-01-01T00:00:00.000Z")
    assert [view["text"] for view in await member.take()] == ["one"]
    at(1000.0)
    member.expire()
    assert (member.unread, member.expiry) == ({1}, {})


async def test_a_text_that_was_too_long_to_keep_expires_as_well(member, client, at, monkeypatch):
    monkeypatch.setattr(members, "AT_HAND", 3)
    arrive(member, client, "longer", expires_at=200.0)
    at(200.0)
    assert (member.pending(), member.unread) == ([], set())


async def test_what_was_polled_and_given_back_expires_as_well(member, client, at):
    client.arrive("one", expires_at=200.0)
    assert [view["id"] for view in await member.take()] == [1]
    member.shown((1,), whole=False)
    at(200.0)
    assert (member.pending(), member.unread) == ([], set())


async def test_what_is_unread_no_longer_has_no_time_to_be_remembered(member, client, at):
    arrive(member, client, "one", "two", expires_at=200.0)
    member.forget((1,))
    assert list(member.expiry) == [2]


async def test_a_page_does_not_count_what_has_expired(member, client, at):
    arrive(member, client, "brief", expires_at=200.0)
    client.expire(1)
    client.seen.add(1)
    client.arrive(*[f"[{number}]" for number in range(60)], expires_at=300.0)
    at(200.0)
    await member.take()
    assert 1 not in member.unread


async def test_a_send_without_an_answer_keeps_its_key_until_it_is_answered(monkeypatch):
    keys: list[str] = []
    silent = True

    class Quiet(Client):
        async def call(self, operation, body, *, within=0.0):
            keys.append(body["dedupe_key"])
            if silent:
                raise NoBrokerError("No broker answered", "Try again.")
            return {"ok": True}

    monkeypatch.setattr(repeats, "REMEMBERED", 2)
    member = members.Member(client=Quiet(dict), cwd="/")
    for text in ("forgotten", "one", "two"):
        with pytest.raises(NoBrokerError):
            await member.send("bob", text)
    silent = False
    for text in ("one", "two", "forgotten", "one"):
        await member.send("bob", text)
    assert (keys[3], keys[4]) == (keys[1], keys[2])
    assert len(set(keys)) == 5


async def test_only_a_message_that_was_refused_begins_anew():
    keys: list[str] = []
    fates: list[BaseException | None] = [
        RefusedError("/send-message", 429, {}),
        NoBrokerError("No broker answered", "Repeat it."),
        StoreError("The folder is full", "Empty it."),  # why there is no broker now
        RefusedError("/live", 503, {}),  # and why there is none later
        asyncio.CancelledError(),  # the user interrupted the agent
        None,
    ]

    class Failing(Client):
        async def call(self, operation, body, *, within=0.0):
            keys.append(body["dedupe_key"])
            if (fate := fates.pop(0)) is not None:
                raise fate
            return {"ok": True}

    member = members.Member(client=Failing(dict), cwd="/")
    while fates[0] is not None:
        with pytest.raises(type(fates[0])):
            await member.send("bob", "hi")
    fates.append(None)
    for _ in range(2):
        await member.send("bob", "hi")
    refused, *same, last = keys
    assert len(same) == 5 and len(set(same)) == 1
    assert len({refused, same[0], last}) == 3
