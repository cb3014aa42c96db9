"""Polls that wait for a message."""

import asyncio

import anyio
import pytest
from support.brokers import NO_LIMITS, Caller, draft, make_broker

from claude_peers.broker import mail as mail_module
from claude_peers.broker.mail import LONGEST_WAIT
from claude_peers.core.errors import StoreError
from claude_peers.core.liveness import SILENCE
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

BOUND = 10


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request, tmp_path):
    if request.param == "memory":
        yield await make_broker()
        return
    async with SqliteStore(str(tmp_path / "mail.db")) as store:
        yield await make_broker(store)


@pytest.fixture
async def bob(rig):
    return (await rig.join(name="bob")).peer.id


async def waiting(rig, bob, count: int = 1, **fields) -> asyncio.Future:
    """Begin a poll that waits; return it once `count` of them do."""
    poll = asyncio.ensure_future(rig.poll(bob, wait_s=50.0, **fields))
    with anyio.fail_after(BOUND):
        while len(rig.broker.mail.arrivals.get(bob, ())) < count:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        await rig.store.ledger()  # behind the poll's first look
        await anyio.wait_all_tasks_blocked()
    return poll


async def test_a_message_that_comes_during_the_wait_is_handed_out(rig, bob):
    poll = await waiting(rig, bob)
    number = (await rig.send(bob)).message.id
    with anyio.fail_after(BOUND):
        assert await poll == [number]
    assert await rig.states(number) == ["leased"]
    assert rig.broker.mail.arrivals == {}


async def test_a_message_that_is_there_is_not_waited_for(rig, bob):
    number = (await rig.send(bob)).message.id
    with anyio.fail_after(BOUND):
        assert await rig.poll(bob, wait_s=50.0) == [number]
    assert rig.broker.mail.arrivals == {}


async def test_a_wait_in_vain_ends_empty(rig, bob):
    with anyio.fail_after(BOUND):
        assert await rig.poll(bob, wait_s=0.001) == []
    assert rig.broker.mail.arrivals == {}


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_is_no_wait(rig, bob, seconds):
    with anyio.fail_after(BOUND):
        assert await rig.poll(bob, wait_s=seconds) == []


async def test_nobody_waits_so_long_that_it_seems_to_be_gone(rig, bob, monkeypatch):
    assert LONGEST_WAIT < SILENCE
    monkeypatch.setattr(mail_module, "LONGEST_WAIT", 0.001)
    with anyio.fail_after(BOUND):
        assert await rig.poll(bob, wait_s=1e9) == []


async def test_what_breaks_off_after_a_wait_is_given_back(rig, bob):
    poll = await waiting(rig, bob, whole=False)
    number = (await rig.send(bob)).message.id
    with anyio.fail_after(BOUND):
        assert await poll == [number]
    assert await rig.states(number) == ["queued"]
    assert await rig.poll(bob) == [number]


async def test_of_two_that_wait_one_gets_the_message(rig, bob):
    polls = [await waiting(rig, bob, 1), await waiting(rig, bob, 2)]
    number = (await rig.send(bob)).message.id
    with anyio.fail_after(BOUND):
        results = await asyncio.gather(*polls)
    assert sorted(results) == [[], [number]]
    assert (await rig.store.message(number)).deliveries == 1
    assert rig.broker.mail.arrivals == {}


async def test_one_of_two_that_wait_may_give_up(rig, bob):
    first, second = await waiting(rig, bob, 1), await waiting(rig, bob, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    number = (await rig.send(bob)).message.id
    with anyio.fail_after(BOUND):
        assert await second == [number]


async def test_several_messages_at_once_wake_once(rig, bob):
    poll = await waiting(rig, bob)
    sent = await asyncio.gather(*(rig.send(bob, str(n)) for n in range(3)))
    numbers = [receipt.message.id for receipt in sent]
    with anyio.fail_after(BOUND):
        got = await poll
    assert got == numbers[: len(got)] and got
    # The second poll settles the first, and has the rest.
    assert got + await rig.poll(bob) == numbers


async def test_mail_for_others_wakes_nobody(rig, bob):
    poll = await waiting(rig, bob)
    await rig.send((await rig.join()).peer.id)
    await anyio.wait_all_tasks_blocked()
    assert not poll.done()
    await rig.send(bob)
    with anyio.fail_after(BOUND):
        await poll


async def test_a_waiting_poll_settles_the_one_before_at_its_beginning(rig, bob):
    number = (await rig.send(bob)).message.id
    await rig.poll(bob)
    poll = await waiting(rig, bob)
    assert await rig.states(number) == ["seen"]
    later = (await rig.send(bob)).message.id
    with anyio.fail_after(BOUND):
        assert await poll == [later]


async def test_what_a_waiting_poll_excludes_is_not_handed_out_after_the_wait(rig, bob):
    poll = await waiting(rig, bob, ack_supported=True, exclude=(1,), limit=1)
    await rig.send(bob)
    with anyio.fail_after(BOUND):
        assert await poll == []
    assert await rig.unread(bob) == [1]


async def test_a_store_that_fails_after_the_wait_loses_nothing():
    rig = await make_broker()
    bob = (await rig.join()).peer.id
    first = (await rig.send(bob)).message.id
    await rig.poll(bob)
    poll = await waiting(rig, bob)
    rig.store.broken.add("hand_out")
    number = (await rig.send(bob)).message.id
    with pytest.raises(StoreError):
        await poll
    rig.store.broken.clear()
    assert await rig.poll(bob, Caller()) == [number]
    assert await rig.states(first, number) == ["seen", "leased"]


async def test_who_has_gone_is_handed_nothing_that_came_at_the_same_moment(rig, bob):
    caller = Caller()
    poll = await waiting(rig, bob, caller=caller)
    number = (await rig.store.accept(draft(to=bob, expires_at=4e9), NO_LIMITS, now=0.0)).message.id
    rig.broker.mail.arrivals.gone(Caller())  # somebody else
    rig.broker.mail.arrivals.gone(caller)
    with anyio.fail_after(BOUND):
        assert await poll == []
    (story,) = await rig.store.stories([number])
    assert (story.message.deliveries, story.steps) == (0, ())
    assert rig.broker.mail.arrivals == {}
