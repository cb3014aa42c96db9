"""Waiting for a message: what ends a wait, what it takes, and what it leaves alone."""

import asyncio

import anyio
import pytest

from claude_peers.core.errors import BadRequestError, NoBrokerError, PeerNotFoundError
from claude_peers.tools import waiting
from claude_peers.tools.member import CALL, Call
from claude_peers.tools.registry import Shown
from claude_peers.tools.waiting import wait_for_message

pytestmark = pytest.mark.anyio
LONG = 250


class Reports:
    """Keeps what is reported, and lets a test wait for it."""

    def __init__(self):
        self.told = []
        self.changed = asyncio.Event()

    async def __call__(self, done, total, message):
        self.told.append((done, total, message))
        self.changed.set()

    async def until(self, count):
        with anyio.fail_after(5):
            while len(self.told) < count:
                self.changed.clear()
                await self.changed.wait()


class Wait:
    """One wait under way; it is known to wait for an arrival."""

    def __init__(self, member, **given):
        self.reports = Reports()
        self.task = asyncio.create_task(
            wait_for_message.run(member, progress=self.reports, **{"timeout_s": LONG, **given})
        )

    async def result(self):
        with anyio.fail_after(5):
            return await self.task


@pytest.fixture
def looked(monkeypatch):
    """Return what tells that a wait has looked, found nothing, and waits."""
    found = asyncio.Semaphore(0)
    until = waiting._Wait.until

    async def told(self, arriving, member):
        found.release()
        return await until(self, arriving, member)

    monkeypatch.setattr(waiting._Wait, "until", told)

    async def wait():
        with anyio.fail_after(5):
            await found.acquire()

    return wait


def arrive(member, client, *texts, **more):
    """Let messages come as pushes."""
    ids = client.arrive(*texts, **more)
    for number in ids:
        member.arrive(client.queued[number], None)
    return ids


# Any message


async def test_unread_mail_is_shown_at_once(member, client):
    client.arrive("one", "two")
    shown = await Wait(member).result()
    assert shown.message_ids == (1, 2)
    assert shown.text.startswith("2 new message(s):")
    assert member.in_hand == {1, 2}


async def test_a_message_that_comes_ends_the_wait(member, client, looked):
    wait = Wait(member)
    await looked()
    arrive(member, client, "hello")
    shown = await wait.result()
    assert isinstance(shown, Shown)
    assert shown.text.endswith(":\nhello")
    assert shown.message_ids == (1,)
    assert wait.reports.told == []


async def test_a_message_that_comes_while_it_looks_is_not_missed(member, client, looked):
    client.gate.clear()
    wait = Wait(member)
    await client.heard("/poll-messages")
    arrive(member, client, "hello")
    client.gate.set()
    assert (await wait.result()).message_ids == (1,)


async def test_what_comes_during_the_wait_is_shown_whole_though_it_was_pushed(
    member, client, looked
):
    (before,) = arrive(member, client, "old\nlines", from_id="zzzz0000")
    member.pushed.add(before)
    wait = Wait(member, from_id="abcd1234")
    await looked()
    member.pushed.update(arrive(member, client, "first\nsecond"))
    assert (await wait.result()).text.split("\n\n---\n\n")[0].endswith("first\nsecond")


async def test_what_has_expired_is_not_what_is_waited_for(member, client):
    (number,) = arrive(member, client, "brief", from_id="abcd1234", expires_at=200.0)
    client.expire(number)
    member.wall = lambda: 200.0
    result = await Wait(member, timeout_s=0, from_id="abcd1234").result()
    assert result == "No message from abcd1234 within 0 s."
    assert [path for path, _ in client.asked if path == "/poll-messages"] == []


async def test_what_was_pushed_before_is_listed_by_its_first_line(member, client):
    member.pushed.update(arrive(member, client, "first\nsecond"))
    assert "second" not in (await Wait(member).result()).text


async def test_when_nothing_comes_it_says_so(member):
    assert await Wait(member, timeout_s=0.001).result() == "No message within 0.001 s."


@pytest.mark.parametrize("timeout_s", [0, -5])
async def test_no_time_is_one_look(member, client, timeout_s):
    assert await Wait(member, timeout_s=timeout_s).result() == "No message within 0 s."
    client.arrive("one")
    assert (await Wait(member, timeout_s=timeout_s).result()).message_ids == (1,)


async def test_no_wait_is_longer_than_the_longest(member, monkeypatch):
    monkeypatch.setattr(waiting, "LONGEST", 0.001)
    assert "within 0.001 s" in await Wait(member, timeout_s=10**9).result()


async def test_without_a_broker_it_fails_and_takes_nothing(member, client):
    client.broken = True
    with pytest.raises(NoBrokerError):
        await Wait(member).result()
    assert member.in_hand == set()


# Progress


async def test_progress_is_told_until_the_message_comes(member, client, monkeypatch):
    monkeypatch.setattr(waiting, "EVERY", 0.001)
    wait = Wait(member)
    await wait.reports.until(3)
    arrive(member, client, "hello")
    await wait.result()
    done = [each for each, _, _ in wait.reports.told]
    assert done == sorted({*done})
    assert {(total, message) for _, total, message in wait.reports.told} == {
        (LONG, "waiting for a message")
    }
    assert [path for path, _ in client.asked] == ["/poll-messages"] * 2  # it did not ask meanwhile


async def test_mail_of_an_agents_second_server_is_looked_for_with_each_sign(
    member, client, monkeypatch
):
    monkeypatch.setattr(waiting, "EVERY", 0.001)
    client.secondary = True
    wait = Wait(member)
    await wait.reports.until(1)
    client.arrive("hello")
    assert (await wait.result()).message_ids == (1,)


async def test_what_somebody_else_gave_back_is_found(member, client, monkeypatch):
    monkeypatch.setattr(waiting, "EVERY", 0.001)
    arrive(member, client, "hello")
    (taken,) = await member.take()
    wait = Wait(member)
    await client.heard("/poll-messages", 2)
    member.give_back([taken["id"]])
    assert (await wait.result()).message_ids == (1,)


# One peer, one answer


async def test_only_the_peers_message_is_taken(member, client, looked):
    arrive(member, client, "other", from_id="zzzz0000")
    wait = Wait(member, from_id="abcd1234")
    await looked()
    arrive(member, client, "another", from_id="zzzz0000")
    await looked()
    arrive(member, client, "wanted")
    shown = await wait.result()
    assert shown.message_ids == (3,)
    assert "another" not in shown.text
    assert "2 more: call check_messages again." in shown.text
    polls = [body["exclude"] for path, body in client.asked if path == "/poll-messages"]
    assert polls == [[1, 2]]
    assert sorted(client.queued) == [1, 2]


async def test_only_the_answer_is_taken(member, client, looked):
    wait = Wait(member, reply_to=40)
    await looked()
    arrive(member, client, "no answer", reply_to=39)
    await looked()
    arrive(member, client, "the answer", reply_to=40)
    assert (await wait.result()).message_ids == (2,)


async def test_peer_and_answer_must_both_be_right(member, client, looked):
    wait = Wait(member, reply_to=40, from_id="zzzz0000")
    await looked()
    arrive(member, client, "the answer of somebody else", reply_to=40)
    await looked()
    arrive(member, client, "the answer", reply_to=40, from_id="zzzz0000")
    assert (await wait.result()).message_ids == (2,)


async def test_a_peer_may_be_named(member, client, looked):
    client.peers = [{"id": "abcd1234", "name": "alpha"}, {"id": "zzzz0000", "name": "beta"}]
    wait = Wait(member, from_id=" alpha ")
    await looked()
    arrive(member, client, "other", from_id="zzzz0000")
    await looked()
    arrive(member, client, "wanted")
    assert (await wait.result()).message_ids == (2,)


async def test_a_name_that_nobody_has_is_refused_at_once(member, client):
    client.peers = [{"id": "abcd1234", "name": "alpha"}]
    with pytest.raises(PeerNotFoundError, match="<gamma> not found") as caught:
        await Wait(member, from_id="<gamma>\n").result()
    assert "list_peers" in str(caught.value)
    with pytest.raises(BadRequestError, match="empty"):
        await Wait(member, from_id=" ").result()


async def test_a_notice_of_the_broker_ends_every_wait(member, client, looked):
    wait = Wait(member, reply_to=40)
    await looked()
    arrive(member, client, "forged", from_id="claude-peers")
    await looked()
    arrive(member, client, "abcd1234 ended", from_id="claude-peers", verified=True)
    assert (await wait.result()).message_ids == (2,)


async def test_when_the_peer_or_the_answer_does_not_come_it_says_so(member):
    assert await Wait(member, timeout_s=0, from_id="abcd1234").result() == (
        "No message from abcd1234 within 0 s."
    )
    assert await Wait(member, timeout_s=0, reply_to=40).result() == (
        "No answer to message 40 within 0 s. message_status(40) tells what became of it."
    )


async def test_mail_whose_text_is_not_at_hand_is_looked_for_at_the_broker(member, client):
    client.arrive("other", from_id="zzzz0000")
    client.arrive("wanted")
    member.unread |= {1, 2}
    assert (await Wait(member, from_id="abcd1234").result()).message_ids == (2,)
    assert sorted(client.queued) == [1]


async def test_what_comes_between_the_look_and_the_taking_goes_back(member, client):
    arrive(member, client, "wanted")
    client.gate.clear()
    lease = client._lease

    def late(exclude, limit):
        client.arrive("unwanted", from_id="zzzz0000")
        return lease(exclude, limit)

    client._lease = late
    client.gate.set()
    assert (await Wait(member, from_id="abcd1234").result()).message_ids == (1,)
    await client.heard("/release-messages")
    assert client.asked[-1] == ("/release-messages", {"id": "me000000", "message_ids": [2]})


# Cancelled, side by side, sub-agents


async def test_a_wait_that_is_cancelled_takes_nothing(member, client, looked):
    wait = Wait(member)
    await looked()
    wait.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait.task
    arrive(member, client, "hello")
    assert (client.leased, member.in_hand, member.unread) == ({}, set(), {1})


@pytest.mark.parametrize("given", [{}, {"from_id": "abcd1234"}])
async def test_what_a_cancelled_wait_was_being_handed_goes_back(member, client, given):
    arrive(member, client, "hello")
    client.gate.clear()
    wait = Wait(member, **given)
    await client.heard("/poll-messages")
    wait.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait.task
    client.gate.set()
    await client.heard("/release-messages")
    with anyio.fail_after(5):
        while member._returning:
            await asyncio.wait([*member._returning])
    assert (client.leased, [*client.queued]) == ({}, [1])


async def test_a_wait_that_is_cancelled_without_a_broker_leaves_nothing_open(member, client):
    arrive(member, client, "hello")
    client.gate.clear()
    wait = Wait(member, reply_to=None, from_id="abcd1234")
    await client.heard("/list-peers")
    client.broken = True
    await client.heard("/poll-messages")
    wait.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait.task
    await asyncio.sleep(0)
    assert member.in_hand == set()


@pytest.mark.parametrize("given", [{}, {"from_id": "abcd1234"}])
async def test_a_sub_agent_is_shown_the_mail_and_does_not_take_it(member, client, given):
    arrive(member, client, "hello")

    async def as_sub_agent():
        CALL.set(Call("t", sub_agent=True))
        return await Wait(member, **given).result()

    text = await asyncio.create_task(as_sub_agent())
    assert isinstance(text, str)
    assert text.endswith(":\nhello")
    assert [*client.queued] == [1]
