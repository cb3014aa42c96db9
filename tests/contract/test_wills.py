"""What a store promises about last wills."""

from dataclasses import replace

import pytest
from support.brokers import LEADER

from claude_peers.core.errors import FencedError
from claude_peers.core.limits import Limits
from claude_peers.core.models import Draft, Peer, PeerId, Retained
from claude_peers.core.wills import Will
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

ANN, BOB = PeerId("ann"), PeerId("bob")
NONE = Limits(per_minute=0, mailbox=0)
WILL = Will(peer_id=ANN, topic="status", text="gone", qos=1, retain=True)
VALUE = Retained(topic="status", from_id=ANN, text="gone", sent_at="then")


def draft(**more):
    return Draft(from_id=ANN, to_id=BOB, text="gone", sent_at="then", expires_at=50.0, **more)


async def test_a_will_is_kept_as_it_was_given_and_replaced_as_a_whole(store):
    assert await store.wills() == []
    await store.save_will(WILL)
    await store.save_will(replace(WILL, peer_id=BOB, retain=False))
    later = replace(WILL, topic="other", text="", qos=0, armed=False)
    await store.save_will(later)
    assert await store.wills() == [later, replace(WILL, peer_id=BOB, retain=False)]


async def test_a_will_is_published_and_disarmed_once(store):
    await store.save_will(WILL)
    first = await store.publish_will(WILL, [draft(qos=0)], NONE, now=1.0, keep=VALUE)
    assert [(each.message.to_id, each.message.qos) for each in first] == [(BOB, 0)]
    assert await store.wills() == [replace(WILL, armed=False)]
    assert await store.retained() == [VALUE]
    other = replace(VALUE, text="again")
    assert await store.publish_will(WILL, [draft()], NONE, now=2.0, keep=other) == []
    assert await store.retained() == [VALUE]
    assert (await store.ledger()).accepted == 1


async def test_a_will_that_was_dropped_is_not_published(store):
    await store.save_will(WILL)
    await store.drop_will(ANN)
    await store.drop_will(BOB)  # who has none
    assert await store.publish_will(WILL, [draft()], NONE, now=1.0, keep=None) == []
    assert await store.wills() == []
    assert (await store.ledger()).accepted == 0


async def test_who_is_forgotten_leaves_no_will(store):
    for peer_id in (ANN, BOB):
        await store.save_peer(Peer(id=peer_id, name=peer_id))
        await store.save_will(replace(WILL, peer_id=peer_id))
    await store.forget_peers([ANN])
    assert [will.peer_id for will in await store.wills()] == [BOB]


async def test_what_was_accepted_has_the_quality_that_was_asked_for(store):
    for qos in (0, 1, 2):
        receipt = await store.accept(draft(qos=qos), NONE, now=1.0)
        assert receipt.message.qos == qos
        assert (await store.message(receipt.message.id)).qos == qos


async def test_a_leader_that_was_succeeded_publishes_no_will(tmp_path):
    path = str(tmp_path / "mail.db")
    async with SqliteStore(path) as first, SqliteStore(path) as second:
        await first.take_office(LEADER, now=0.0)
        await first.save_will(WILL)
        await second.take_office(LEADER, now=0.0)
        for late in (
            first.publish_will(WILL, [draft()], NONE, now=2.0, keep=VALUE),
            first.save_will(replace(WILL, text="late")),
            first.drop_will(ANN),
        ):
            with pytest.raises(FencedError):
                await late
        assert await second.wills() == [WILL]
        assert await second.history(limit=9) == []
