"""What a store promises about webhooks and hook tokens."""

from dataclasses import replace

import pytest
from support.brokers import LEADER

from claude_peers.core.errors import FencedError
from claude_peers.core.models import Peer, PeerId
from claude_peers.core.webhooks import Format, HookToken, Webhook
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

ANN = Webhook(peer_id=PeerId("ann"), url="http://127.0.0.1:1/", secret="whsec_AA==")
BOB = Webhook(
    peer_id=PeerId("bob"), url="http://a/", format=Format.OPENCLAW, secret="s", token="t",
    problem="HTTP 410",
)  # fmt: skip
TOKEN = HookToken(name="ci", topic="build/#", token_hash="h", created_at="then")


async def test_there_are_none_at_first(store):
    assert (await store.webhooks(), await store.hook_tokens()) == ([], [])


async def test_webhooks_are_kept_as_they_were_saved_last(store):
    for each in (BOB, ANN, replace(ANN, url="http://127.0.0.1:2/")):
        await store.save_webhook(each)
    assert await store.webhooks() == [replace(ANN, url="http://127.0.0.1:2/"), BOB]
    await store.drop_webhook(PeerId("ann"))
    await store.drop_webhook(PeerId("nobody"))
    assert await store.webhooks() == [BOB]


async def test_a_webhook_goes_with_its_peer(store):
    await store.save_peer(Peer(id=PeerId("ann"), name="ann"))
    await store.save_webhook(ANN)
    await store.save_webhook(BOB)
    await store.forget_peers([PeerId("ann")])
    assert await store.webhooks() == [BOB]


async def test_hook_tokens_are_kept_by_name(store):
    for each in (TOKEN, HookToken(name="a", topic="x", token_hash="i"), replace(TOKEN, topic="y")):
        await store.save_hook_token(each)
    assert [(t.name, t.topic) for t in await store.hook_tokens()] == [("a", "x"), ("ci", "y")]
    await store.drop_hook_token("a")
    signed = replace(TOKEN, topic="y", secret="s3cret")
    await store.save_hook_token(signed)
    assert await store.hook_tokens() == [signed]
    assert "s3cret" not in repr(await store.hook_tokens())


async def test_they_survive_a_take_over_and_an_earlier_leader_changes_nothing(tmp_path):
    path = str(tmp_path / "mail.db")
    async with SqliteStore(path) as first, SqliteStore(path) as second:
        await first.take_office(LEADER, now=0.0)
        await first.save_webhook(ANN)
        await first.save_hook_token(TOKEN)
        await second.take_office(LEADER, now=0.0)
        for late in (
            first.save_webhook(BOB), first.drop_webhook(PeerId("ann")),
            first.save_hook_token(TOKEN), first.drop_hook_token("ci"),
        ):  # fmt: skip
            with pytest.raises(FencedError):
                await late
        assert (await second.webhooks(), await second.hook_tokens()) == ([ANN], [TOKEN])
