"""What a store promises about subscriptions, last values, and what is published."""

from dataclasses import replace

import pytest
from support.brokers import LEADER

from claude_peers.core.delivery import DELIVERIES, Event
from claude_peers.core.errors import DedupeConflictError, FencedError, MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, Ledger, Peer, PeerId, Receipt, Retained, State
from claude_peers.stores.retention import DEDUPE_WINDOW
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

ANN, BOB, CEM = PeerId("ann"), PeerId("bob"), PeerId("cem")
NONE = Limits(per_minute=0, mailbox=0)
ONE = Limits(mailbox=1)


def draft(to_id, text="hi", **more):
    return Draft(from_id="x", to_id=to_id, text=text, sent_at="then", expires_at=50.0, **more)


VALUE = Retained(topic="cfg", from_id="x", text="v1", sent_at="then", verified=True, qos=0)


async def test_a_published_draft_becomes_a_message_with_its_topic_for_each_recipient(store):
    done = await store.publish([draft(BOB, topic="t"), draft(ANN, topic="t")], NONE, now=1.0)
    assert [(each.message.id, each.message.to_id) for each in done] == [(1, BOB), (2, ANN)]
    for receipt in done:
        assert (receipt.message.topic, receipt.message.retained) == ("t", False)
        assert await store.message(receipt.message.id) == receipt.message
    assert await store.ledger() == Ledger(accepted=2, purged=0, states={State.QUEUED: 2})


async def test_a_full_mailbox_refuses_its_own_copy_only(store):
    await store.accept(draft(BOB), ONE, now=1.0)
    first, full, last = await store.publish([draft(ANN), draft(BOB), draft(CEM)], ONE, now=1.0)
    assert isinstance(first, Receipt)
    assert isinstance(full, MailboxFullError)
    assert isinstance(last, Receipt)
    assert [message.to_id for message in await store.history(limit=9)] == [BOB, ANN, CEM]


async def test_any_other_refusal_leaves_nothing_behind(store):
    await store.accept(draft(BOB, dedupe_key="k"), NONE, now=1.0)
    with pytest.raises(DedupeConflictError):
        await store.publish(
            [draft(ANN), draft(BOB, "other", dedupe_key="k")], NONE, now=1.0, keep=VALUE
        )
    assert len(await store.history(limit=9)) == 1
    assert await store.retained() == []


async def test_what_is_published_again_under_its_keys_is_a_duplicate(store):
    drafts = [draft(BOB, dedupe_key="k1"), draft(ANN, dedupe_key="k2")]
    await store.publish(drafts, NONE, now=1.0)
    again = await store.publish(drafts, NONE, now=2.0)
    assert [(each.duplicate, each.message.id) for each in again] == [(True, 1), (True, 2)]


async def test_the_last_value_of_a_topic_is_kept_replaced_and_ended(store):
    other = replace(VALUE, topic="a", expires_at=7.5, verified=False)
    await store.publish([], NONE, now=1.0, keep=VALUE)
    await store.publish([], NONE, now=1.0, keep=other)
    assert await store.retained() == [other, VALUE]
    newer = replace(VALUE, text="v2")
    await store.publish([], NONE, now=1.0, keep=newer)
    assert await store.retained() == [other, newer]
    await store.publish([], NONE, now=1.0, keep=replace(VALUE, text=""))
    await store.publish([], NONE, now=1.0, keep=replace(VALUE, text=""))
    assert await store.retained() == [other]


@pytest.mark.parametrize("drafts", [[], [draft(BOB, "v1", dedupe_key="k to bob")]])
@pytest.mark.parametrize("newer", ["v2", ""])
async def test_a_value_that_comes_again_under_its_key_replaces_no_newer_one(store, drafts, newer):
    await store.publish(drafts, NONE, now=1.0, keep=VALUE, key="k")
    await store.publish([], NONE, now=2.0, keep=replace(VALUE, from_id="y", text=newer), key="k")
    left = await store.retained()
    assert await store.kept(VALUE, "k", now=3.0)
    await store.publish(drafts, NONE, now=3.0, keep=VALUE, key="k")
    assert await store.retained() == left != [VALUE]


async def test_a_key_of_a_value_is_one_senders_and_lasts_ten_minutes(store):
    await store.publish([], NONE, now=1.0, keep=VALUE, key="k")
    late = 1.0 + DEDUPE_WINDOW
    assert await store.kept(VALUE, "k", now=late - 1)
    assert not await store.kept(VALUE, "k", now=late)
    assert not await store.kept(VALUE, "other", now=2.0)
    assert not await store.kept(replace(VALUE, from_id="y"), "k", now=2.0)
    await store.publish([], NONE, now=late, keep=replace(VALUE, text="v2"), key="k")
    await store.publish([], NONE, now=late + 1, keep=replace(VALUE, text="v2"), key="k")
    assert [each.text for each in await store.retained()] == ["v2"]


async def test_a_key_that_was_another_values_refuses_all_of_it(store):
    await store.publish([], NONE, now=1.0, keep=VALUE, key="k")
    for other in (replace(VALUE, text="v2"), replace(VALUE, topic="other")):
        with pytest.raises(DedupeConflictError):
            await store.kept(other, "k", now=2.0)
        with pytest.raises(DedupeConflictError):
            await store.publish([draft(BOB)], NONE, now=2.0, keep=other, key="k")
    assert await store.retained() == [VALUE]
    assert await store.history(limit=9) == []


async def test_subscriptions_are_kept_in_order_each_once(store):
    for pattern in ("z", "a", "z"):
        assert await store.subscribe((BOB, pattern), [], NONE, now=1.0) == []
    await store.subscribe((ANN, "a"), [], NONE, now=1.0)
    await store.unsubscribe((ANN, "nothing"))
    await store.unsubscribe((CEM, "a"))
    assert await store.subscriptions() == [(BOB, "z"), (BOB, "a"), (ANN, "a")]
    await store.unsubscribe((BOB, "z"))
    assert await store.subscriptions() == [(BOB, "a"), (ANN, "a")]


async def test_a_peers_subscriptions_go_when_it_is_forgotten_not_when_it_changes(store):
    for peer_id in (ANN, BOB):
        await store.save_peer(Peer(id=peer_id, name="n"))
        await store.subscribe((peer_id, "t"), [], NONE, now=1.0)
    await store.save_peer(Peer(id=ANN, name="other"))
    await store.forget_peers([BOB])
    assert await store.subscriptions() == [(ANN, "t")]


async def test_a_subscriber_gets_last_values_as_far_as_there_is_room(store):
    drafts = [draft(BOB, text, topic="t", retained=True) for text in ("1", "2")]
    given, missed = await store.subscribe((BOB, "t"), drafts, ONE, now=1.0)
    assert (given.message.text, given.message.retained) == ("1", True)
    assert isinstance(missed, MailboxFullError)
    assert await store.subscriptions() == [(BOB, "t")]


async def given_a_value(store):
    (receipt,) = await store.subscribe(
        (BOB, "t"), [draft(BOB, topic="t", retained=True)], NONE, now=1.0
    )
    return receipt.message.id


@pytest.mark.parametrize("died_before", [False, True])
async def test_a_last_value_nobody_reads_is_forgotten_and_is_no_dead_letter(store, died_before):
    if died_before:
        await store.accept(replace(draft(ANN), expires_at=2.0), NONE, now=1.0)
        await store.tidy(now=3.0, most=9)
    number = await given_a_value(store)
    assert await store.tidy(now=60.0, most=9) == 1
    assert await store.dead_letters(limit=9) == await store.dead_letters(ANN, limit=9)
    assert await store.message(number) is None
    assert (await store.mailbox(BOB)).unread == 0
    dead = {State.DEAD: 1} if died_before else {}
    assert await store.ledger() == Ledger(accepted=1 + died_before, purged=1, states=dead)


async def test_a_last_value_handed_out_too_often_is_forgotten_as_well(store):
    number = await given_a_value(store)
    for _ in range(DELIVERIES + 1):
        await store.move(BOB, [number], Event.PUSH, now=2.0)
    assert await store.dead_letters(limit=9) == []
    assert await store.ledger() == Ledger(accepted=1, purged=1)


async def test_a_last_value_that_was_read_is_kept_like_any_message(store):
    number = await given_a_value(store)
    await store.move(BOB, [number], Event.SEE, now=2.0)
    assert (await store.message(number)).state is State.SEEN
    assert await store.ledger() == Ledger(accepted=1, purged=0, states={State.SEEN: 1})


async def test_topics_survive_a_take_over_and_fence_the_earlier_leader(tmp_path):
    path = str(tmp_path / "mail.db")
    async with SqliteStore(path) as first, SqliteStore(path) as second:
        await first.take_office(LEADER, now=0.0)
        await first.subscribe((BOB, "t"), [], NONE, now=1.0)
        await first.publish([], NONE, now=1.0, keep=VALUE)
        await second.take_office(LEADER, now=0.0)
        for late in (
            first.publish([draft(BOB)], NONE, now=2.0),
            first.subscribe((BOB, "u"), [], NONE, now=2.0),
            first.unsubscribe((BOB, "t")),
        ):
            with pytest.raises(FencedError):
                await late
        assert await second.subscriptions() == [(BOB, "t")]
        assert await second.retained() == [VALUE]
        assert await second.history(limit=9) == []


async def test_what_goes_to_many_is_one_commit(tmp_path):
    async with SqliteStore(str(tmp_path / "mail.db")) as store:
        await store.take_office(LEADER, now=0.0)
        said = []
        await store.commits.submit(lambda db: db.set_trace_callback(said.append))
        said.clear()
        await store.publish([draft(PeerId(f"p{n}")) for n in range(50)], NONE, now=1.0, keep=VALUE)
        assert [each for each in said if each.startswith(("BEGIN", "COMMIT"))] == [
            "BEGIN IMMEDIATE",
            "COMMIT",
        ]
        await store.commits.submit(lambda db: db.set_trace_callback(None))
        assert (await store.ledger()).accepted == 50
