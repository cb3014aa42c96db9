"""Webhooks in, as the broker sees them: who may publish, and as whom."""

from pathlib import Path

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker import hooks
from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.registration import hash_token
from claude_peers.core.errors import (
    BadRequestError,
    NotPossibleError,
    RateLimitedError,
    SecretRequiredError,
)
from claude_peers.core.limits import Limits
from claude_peers.core.models import Process
from claude_peers.core.webhooks import HookTokenNotFoundError
from claude_peers.wire.hook_signature import sign

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)


async def call(rig, path: str, caller=USER, **body):
    return await BY_PATH[path](rig.broker, caller, body)


async def made(rig, topic: str = "build/#", name: str = "ci"):
    told = await call(rig, "/admin/hook-token", name=name, topic=topic)
    return told["token"], rig.broker.hooks.admit(hash_token(told["token"]), "build/done")


async def subscribed(rig):
    peer = (await rig.join(name="ann")).peer
    await rig.broker.topics.subscribe(Caller(), peer.id, "build/+")
    return peer


@pytest.mark.parametrize("required", [False, True])
async def test_a_post_is_published_once_as_its_token_and_not_verified(required):
    rig = await make_broker(require_token=required)
    joined = await rig.join(name="ann")
    ann = Caller(token_hash=hash_token(joined.token))
    await rig.broker.topics.subscribe(ann, joined.peer.id, "build/+")
    _, token = await made(rig)
    for _ in range(2):  # the sender has missed the answer, and repeats it
        published = await rig.broker.hooks.publish(token, "build/done", '{"ok":1}', key="delivery")
        assert len(published.copies) == 1
    (message,) = await rig.store.unread(joined.peer.id)
    assert (message.from_id, message.topic, message.text, message.verified) == (
        "hook:ci", "build/done", '{"ok":1}', False,
    )  # fmt: skip
    await rig.broker.hooks.publish(token, "build/done", '{"ok":1}')
    await rig.broker.hooks.publish(token, "build/done", '{"ok":1}')
    assert len(await rig.unread(joined.peer.id)) == 3


async def test_a_token_may_publish_as_often_as_the_page_says():
    limits = Limits()
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    often = f"{limits.burst} times at once and {limits.per_minute} times a minute"
    assert f"A token may publish {often}" in page
    rig = await make_broker(limits=limits)
    await subscribed(rig)
    _, token = await made(rig)
    for _ in range(limits.burst):
        await rig.broker.hooks.publish(token, "build/done", "x")
    with pytest.raises(RateLimitedError):
        await rig.broker.hooks.publish(token, "build/done", "x")
    _, other = await made(rig, name="other")
    await rig.broker.hooks.publish(other, "build/done", "x")


async def test_a_token_counts_for_its_topics_only_and_until_it_is_revoked():
    rig = await make_broker()
    token, _ = await made(rig)
    admit = rig.broker.hooks.admit
    assert admit(hash_token(token), "build/done") is not None
    assert admit(hash_token(token), "other") is None
    assert admit(hash_token("another"), "build/done") is None
    knows = rig.broker.hooks.knows
    assert knows(hash_token(token))
    assert not (knows(hash_token("another")) or knows(None))
    assert admit(None, "build/done") is None
    later = await make_broker(rig.store)
    assert later.broker.hooks.admit(hash_token(token), "build") is not None
    assert await call(rig, "/admin/revoke-hook-token", name="ci") == {
        "ok": True, "name": "ci", "topic": "build/#",
    }  # fmt: skip
    assert admit(hash_token(token), "build/done") is None
    with pytest.raises(HookTokenNotFoundError):
        await call(rig, "/admin/revoke-hook-token", name="ci")


async def test_a_new_token_of_a_name_makes_the_old_one_void_and_none_is_kept_or_listed():
    rig = await make_broker()
    old, _ = await made(rig)
    new, _ = await made(rig)
    assert rig.broker.hooks.admit(hash_token(old), "build/done") is None
    (listed,) = (await call(rig, "/admin/hook-tokens"))["hook_tokens"]
    assert set(listed) == {"name", "topic", "signed", "created_at"}
    assert listed["signed"] is False
    assert new not in repr([listed, await rig.store.hook_tokens()])


async def test_only_a_token_that_was_made_for_it_is_kept_and_signs_for_its_topics():
    rig = await make_broker()
    told = await call(rig, "/admin/hook-token", name="other", topic="build/#")
    assert not rig.broker.hooks.take_signatures()
    assert rig.broker.hooks.signer("build/done", sign(told["token"], b"x"), b"x") is None
    made = await call(rig, "/admin/hook-token", name="gh", topic="build/+", signed=True)
    signature = sign(made["token"], b"x")
    for each in (rig, await make_broker(rig.store)):  # the next broker knows it as well
        hooks_ = each.broker.hooks
        assert hooks_.take_signatures()
        assert hooks_.signer("build/done", signature, b"x").name == "gh"
        assert hooks_.signer("build/done", signature, b"y") is None
        assert hooks_.signer("build/done", sign("", b"x"), b"x") is None
        assert hooks_.signer("build", signature, b"x") is None
        assert hooks_.admit(hash_token(made["token"]), "build/done").name == "gh"
    listed = (await call(rig, "/admin/hook-tokens"))["hook_tokens"]
    assert [(each["name"], each["signed"]) for each in listed] == [("gh", True), ("other", False)]
    assert made["token"] not in repr([listed, await rig.store.hook_tokens()])
    await call(rig, "/admin/hook-token", name="gh", topic="build/+")
    assert rig.broker.hooks.signer("build/done", signature, b"x") is None
    assert [each.secret for each in await rig.store.hook_tokens()] == ["", ""]


async def test_only_the_user_lets_anybody_publish():
    rig = await make_broker()
    for path in ("/admin/hook-token", "/admin/hook-tokens", "/admin/revoke-hook-token"):
        with pytest.raises(SecretRequiredError):
            await call(rig, path, Caller(), name="ci", topic="x")


@pytest.mark.parametrize(("name", "topic"), [("A b", "x"), ("ci", ""), ("ci", "a#"), ("ci", "@x")])
async def test_names_and_topics_that_are_none_are_refused(name, topic):
    rig = await make_broker()
    with pytest.raises(BadRequestError):
        await made(rig, topic, name)


async def test_there_is_an_end_to_hook_tokens(monkeypatch):
    monkeypatch.setattr(hooks, "HOOK_TOKENS", 1)
    rig = await make_broker()
    await made(rig)
    await made(rig)
    with pytest.raises(NotPossibleError):
        await made(rig, name="other")


async def test_a_hook_is_no_peer_and_owns_nothing():
    caller = hooks.HookCaller("hook:ci")
    assert not caller.owns(Process(pid=1, started="x"))
    assert not caller.proves("anything")
    assert not caller.is_user_of("mac")
