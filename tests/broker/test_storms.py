"""Two peers that answer each other without end, and all that is counted of it."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import rates
from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.rates import Exchanges
from claude_peers.core.errors import (
    HopLimitError,
    LoopGuardError,
    PeerNotFoundError,
    RateLimitedError,
)
from claude_peers.core.limits import HOPS, Limits

pytestmark = pytest.mark.anyio

LEDGER = next(each for each in OPERATIONS if each.path == "/ledger")


async def pair(limits: Limits):
    rig = await make_broker(limits=limits)
    ends = [await rig.joins_as_process(41), await rig.joins_as_process(42)]
    return rig, ends


async def write(rig, sender, recipient, **fields):
    return await rig.send(recipient[0], "hi", sender[1], from_id=sender[0], **fields)


@pytest.mark.threat("T26")
async def test_two_that_answer_each_other_are_slowed_to_twelve_a_minute_after_a_burst_of_six():
    rig, (ann, bob) = await pair(Limits())
    await write(rig, ann, bob)  # begins, and answers nothing
    ends = [bob, ann]
    for turn in range(6):
        await write(rig, ends[turn % 2], ends[1 - turn % 2])
    with pytest.raises(LoopGuardError) as caught:
        await write(rig, bob, ann)
    assert caught.value.retry_after == pytest.approx(5.0)
    assert "12 times a minute" in str(caught.value)
    # The one who spoke last may go on, and everybody else speaks to both.
    await write(rig, ann, bob)
    await write(rig, await rig.joins_as_process(43), bob)
    sent = 0
    for _ in range(60):  # a minute, a second at a time
        rig.clock.passed += 1.0
        try:
            await write(rig, ends[sent % 2], ends[1 - sent % 2])
            sent += 1
        except LoopGuardError:
            continue
    assert sent == 12
    assert (await LEDGER(rig.broker, Caller(), {}))["refused"] == {"loop_guard": 1 + 60 - 12}
    assert (await rig.store.ledger()).accepted == 7 + 2 + 12


async def test_one_way_traffic_takes_no_turns():
    rig, (ann, bob) = await pair(Limits(per_minute=600, burst=600))
    for _ in range(50):
        await write(rig, ann, bob)
    for _ in range(50):
        await write(rig, bob, ann)
    assert (await rig.store.ledger()).accepted == 100


async def test_talking_to_oneself_is_no_loop():
    rig, (ann, _) = await pair(Limits())
    for _ in range(20):
        await write(rig, ann, ann)


async def test_no_limit_on_the_rate_lifts_the_loop_guard():
    rig, (ann, bob) = await pair(Limits(per_minute=0))
    for _ in range(50):
        await write(rig, ann, bob)
        await write(rig, bob, ann)
    assert rig.broker.mail.refused == {}


async def test_each_refusal_is_counted_by_its_code():
    rig, (ann, bob) = await pair(Limits(per_minute=60, burst=2))
    with pytest.raises(PeerNotFoundError):
        await rig.send("nobody", caller=ann[1], from_id=ann[0])
    for _ in range(2):
        await write(rig, ann, bob)
    with pytest.raises(RateLimitedError):
        await write(rig, ann, bob)
    assert rig.broker.mail.refused == {"peer_not_found": 1, "rate_limited": 1}


@pytest.mark.threat("T26")
async def test_a_thread_ends_even_where_no_rate_does():
    rig, (ann, bob) = await pair(Limits(per_minute=0))
    last = (await write(rig, ann, bob)).message.id
    ends = [bob, ann]
    for hop in range(HOPS):
        last = (await write(rig, ends[hop % 2], ends[1 - hop % 2], reply_to=last)).message.id
    with pytest.raises(HopLimitError):
        await write(rig, bob, ann, reply_to=last)
    assert rig.broker.mail.refused == {"hop_limit": 1}
    await write(rig, bob, ann)


def test_only_so_many_pairs_are_remembered_and_a_loop_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(rates, "SENDERS", 3)
    exchanges = Exchanges(Limits(turns_burst=1))
    exchanges.take_turn("ann", "bob", now=0.0)
    exchanges.take_turn("bob", "ann", now=0.0)
    for n in range(10):
        exchanges.take_turn(f"other {n}", "bob", now=0.0)
        with pytest.raises(LoopGuardError):
            exchanges.take_turn("ann", "bob", now=0.0)
        assert len(exchanges) <= 3


async def test_what_was_accepted_is_not_refused_when_it_is_sent_once_more():
    rig, (ann, bob) = await pair(Limits(per_minute=60, burst=1))
    first = await write(rig, ann, bob, dedupe_key="k")
    again = await write(rig, ann, bob, dedupe_key="k")
    assert (again.duplicate, again.message.id) == (True, first.message.id)
    with pytest.raises(RateLimitedError):
        await write(rig, ann, bob, dedupe_key="another")


async def test_a_peer_without_a_process_has_one_allowance_whatever_it_connects_from():
    rig, (_, bob) = await pair(Limits(per_minute=60, burst=2))
    shell = (await rig.join(name="sh")).peer.id
    for number in range(2):
        await rig.send(bob[0], caller=Caller(source=f"socket {number}"), from_id=shell)
    with pytest.raises(RateLimitedError):
        await rig.send(bob[0], caller=Caller(source="socket 3"), from_id=shell)
