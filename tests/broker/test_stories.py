"""What senders learn: warnings at once, a message's story later, and dead letters sent again."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import DIRECT_TTL, EXPIRED, OWED
from claude_peers.core.errors import (
    MailboxFullError,
    MessageNotFoundError,
    NotPossibleError,
    NotYourPeerError,
    PeerNotFoundError,
    SecretRequiredError,
)
from claude_peers.core.limits import Limits
from claude_peers.core.models import State
from claude_peers.stores.retention import DEDUPE_WINDOW
from claude_peers.wire.records import SendMessageRequest

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)
OURS = {"proof": "the right answer"}


@pytest.fixture
async def rig():
    return await make_broker()


async def call(rig, path: str, caller, **body):
    return await BY_PATH[path](rig.broker, caller, body)


async def warned(rig, to_id: str) -> list[str]:
    request = SendMessageRequest(to_id=to_id, text="hi", from_id="cli")
    return (await rig.broker.mail.send(Caller(), request)).warnings


# Warnings


async def test_a_peer_that_is_reached_is_no_reason_to_warn(rig):
    peer_id = (await rig.join(route="rewake")).peer.id
    assert await warned(rig, peer_id) == []


@pytest.mark.bug("U22")
async def test_a_sender_is_warned_of_a_peer_without_a_route(rig):
    await rig.join(name="bob")
    assert await warned(rig, "bob") == [
        "bob has no push route: it reads this when it checks its messages."
    ]


async def test_a_sender_is_warned_of_a_peer_that_waits_for_a_successor(rig):
    joined = await rig.join(name="bob", route="rewake", keys=("live:1",), **OURS)
    await rig.broker.peers.unregister(Caller(token_hash=hash_token(joined.token)), joined.peer.id)
    (warning,) = await warned(rig, joined.peer.id)
    assert warning.startswith("bob is not running (last seen 2023-11-14T22:13:20.000Z); ")
    assert "waits in its mailbox for a successor" in warning


@pytest.mark.parametrize(
    ("target", "told"),
    [("bob", "the next holder of that name"), (None, "nobody takes over its mailbox")],
)
async def test_a_sender_is_warned_of_a_peer_that_has_just_died(rig, target, told):
    peer_id, _ = await rig.joins_as_process(41, name="bob", route="rewake")
    rig.machine.end(41)
    (warning,) = await warned(rig, target or peer_id)
    assert "is not running" in warning and told in warning


async def test_a_sender_is_warned_of_a_mailbox_that_fills_up():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox=10))
    peer_id = (await rig.join(name="bob", route="rewake")).peer.id
    assert [await warned(rig, peer_id) for _ in range(9)] == [[]] * 9
    assert await warned(rig, peer_id) == [
        "The mailbox of bob is nearly full (10 messages, 20 bytes): it does not drain."
    ]
    with pytest.raises(MailboxFullError):
        await warned(rig, peer_id)


async def test_a_sender_is_warned_of_many_bytes():
    rig = await make_broker(limits=Limits(per_minute=0, mailbox_bytes=20))
    peer_id = (await rig.join(route="rewake")).peer.id
    await rig.send(peer_id, "x" * 17)
    assert "nearly full" in (await warned(rig, peer_id))[0]


async def test_a_mailbox_without_limit_is_never_full(rig):
    peer_id = (await rig.join(route="rewake")).peer.id
    for _ in range(50):
        assert await warned(rig, peer_id) == []


# Status


async def test_a_message_is_followed_from_its_acceptance_to_its_answer(rig):
    ann, ann_caller = await rig.joins_as_process(41, name="ann")
    bob, bob_caller = await rig.joins_as_process(42, name="bob", route="rewake")
    sent = await rig.send("bob", "secret text", ann_caller, from_id=ann, intent="request")
    number = sent.message.id
    status = await call(rig, "/message-status", ann_caller, message_id=number)
    assert (status["state"], status["steps"], status["hops"]) == ("queued", [], 0)
    assert (status["to_name"], status["presence"]) == ("bob", "present")
    assert "rewake" in status["next"] and "secret text" not in str(status)
    await call(rig, "/pushed-messages", bob_caller, id=bob, message_ids=[number], via="rewake")
    await call(rig, "/ack-messages", bob_caller, id=bob, message_ids=[number])
    await rig.send(ann, "ok", bob_caller, from_id=bob, reply_to=number)
    status = await call(rig, "/message-status", ann_caller, message_id=number)
    assert [(step["event"], step["via"]) for step in status["steps"]] == [
        ("push", "rewake"),
        ("see", "ack"),
        ("answer", f"message {number + 1}"),
    ]
    assert status["next"] == "Nothing: bob has answered it."


async def test_both_ends_and_the_user_see_a_story_and_nobody_else_does(rig):
    ann, bob, cid = [await rig.joins_as_process(pid) for pid in (41, 42, 43)]
    number = (await rig.send(bob[0], caller=ann[1], from_id=ann[0])).message.id
    for allowed in (ann[1], bob[1], USER):
        assert (await rig.broker.fates.story(allowed, number)).message.id == number
    for stranger in (cid[1], Caller(), Caller(token_hash="f00")):
        with pytest.raises(MessageNotFoundError):
            await rig.broker.fates.story(stranger, number)
    with pytest.raises(MessageNotFoundError):
        await rig.broker.fates.story(USER, 99)


async def test_a_message_of_somebody_unknown_is_seen_by_its_recipient(rig):
    bob = await rig.joins_as_process(42)
    number = (await rig.send(bob[0])).message.id
    assert (await rig.broker.fates.story(bob[1], number)).message.id == number
    with pytest.raises(MessageNotFoundError):
        await rig.broker.fates.story(Caller(), number)


async def test_the_status_of_mail_for_who_is_forgotten_is_told(rig):
    peer_id, _ = await rig.joins_as_process(41, name="bob")
    number = (await rig.send("bob")).message.id
    del rig.broker.roster._peers[peer_id]
    status = await call(rig, "/message-status", USER, message_id=number)
    assert (status["to_name"], status["presence"]) == ("bob", None)


# Dead letters


async def died(rig, to_id: str, **fields) -> int:
    number = (await rig.send(to_id, **fields)).message.id
    rig.clock.passed += DIRECT_TTL
    await rig.broker.tidy()
    assert await rig.states(number) == ["dead"]
    return number


async def test_dead_letters_are_shown_to_their_recipient_and_all_of_them_to_the_user(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    first, second = await died(rig, ann[0]), await died(rig, bob[0])
    shown = await call(rig, "/dead-letters", ann[1], id=ann[0])
    (letter,) = shown["dead_letters"]
    assert (letter["id"], letter["reason"]) == (first, EXPIRED)
    assert letter["failed_at"] == "2023-11-15T22:13:20.000Z"
    everything = await rig.broker.fates.dead_letters(USER, "", limit=0)
    assert [message.id for message in everything] == [second]
    everything = await rig.broker.fates.dead_letters(USER, "", limit=10**9)
    assert [message.id for message in everything] == [second, first]
    assert await rig.broker.fates.dead_letters(USER, bob[0], limit=9)
    with pytest.raises(SecretRequiredError):
        await rig.broker.fates.dead_letters(ann[1], "", limit=9)
    with pytest.raises(NotYourPeerError):
        await rig.broker.fates.dead_letters(ann[1], bob[0], limit=9)


async def test_a_dead_letter_is_sent_again_as_it_was_and_once(rig):
    ann = await rig.joins_as_process(41, name="ann")
    bob = await rig.joins_as_process(42, name="bob")
    before = (await rig.send(ann[0], caller=bob[1], from_id=bob[0])).message.id
    fields = {"caller": ann[1], "from_id": ann[0], "intent": "request", "reply_to": before}
    number = await died(rig, "bob", **fields)
    rig.transport.delivered.clear()
    first = await call(rig, "/resend-message", ann[1], message_id=number)
    again = await call(rig, "/resend-message", ann[1], message_id=number)
    assert "duplicate" not in first and again["duplicate"]
    assert again["message_id"] == first["message_id"] > number
    message = await rig.store.message(first["message_id"])
    dead = await rig.store.message(number)
    for same in ("text", "from_id", "to_id", "verified", "intent", "to_name", "reply_to"):
        assert getattr(message, same) == getattr(dead, same)
    assert [each.id for each in rig.transport.delivered] == [message.id]
    rig.clock.passed += DEDUPE_WINDOW
    third = await call(rig, "/resend-message", ann[1], message_id=number)
    assert third["message_id"] > first["message_id"]
    assert (await rig.store.ledger()).balanced


async def test_a_request_that_is_sent_again_waits_for_an_answer_again(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    fields = {"caller": ann[1], "from_id": ann[0], "intent": "request", "answer_within_ms": 1}
    number = await died(rig, bob[0], **fields)
    told = len(await rig.unread(ann[0]))
    await rig.broker.mail.resend(ann[1], number)
    rig.clock.passed += OWED
    await rig.broker.tidy()
    assert len(await rig.unread(ann[0])) == told + 1


async def test_only_dead_letters_are_sent_again_and_only_by_who_has_a_part_in_them(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    alive = (await rig.send(bob[0], caller=ann[1], from_id=ann[0])).message.id
    with pytest.raises(NotPossibleError, match="is queued, not dead"):
        await rig.broker.mail.resend(ann[1], alive)
    dead = await died(rig, bob[0], caller=ann[1], from_id=ann[0])
    with pytest.raises(MessageNotFoundError):
        await rig.broker.mail.resend(Caller(), dead)
    assert (await rig.broker.mail.resend(USER, dead)).receipt.message.from_id == ann[0]


async def test_what_is_sent_again_to_who_is_gone_is_refused(rig):
    bob = await rig.joins_as_process(42, name="bob")
    number = await died(rig, bob[0])
    await rig.broker.peers.unregister(bob[1], bob[0])
    with pytest.raises(PeerNotFoundError, match="list_peers"):
        await rig.broker.mail.resend(USER, number)
    assert (await rig.store.ledger()).accepted == 1


async def test_what_a_muted_sender_sends_again_is_held(rig):
    ann, bob = await rig.joins_as_process(41), await rig.joins_as_process(42)
    number = await died(rig, bob[0], caller=ann[1], from_id=ann[0])
    await rig.broker.peers.mute(bob[1], bob[0], ann[0], muted=True)
    sent = await rig.broker.mail.resend(ann[1], number)
    assert sent.receipt.message.state is State.HELD


# The rest of the wire


async def test_the_history_is_the_users(rig):
    peer_id = (await rig.join()).peer.id
    await rig.send(peer_id)
    await rig.send(peer_id)
    shown = await call(rig, "/history", USER, after=1, limit=0)
    assert [(m["id"], m["state"], m["reason"]) for m in shown["messages"]] == [(2, "queued", None)]
    with pytest.raises(SecretRequiredError):
        await call(rig, "/history", Caller())


async def test_names_mutes_routes_and_keys_travel(rig):
    rig.machine.start(41)
    joined = await rig.join(pid=41, keys=("live:1",), name="ann", **OURS)
    other = (await rig.join(name="bob")).peer.id
    ann, caller = joined.peer.id, Caller(token_hash=hash_token(joined.token))
    renamed = await call(rig, "/rename", caller, id=ann, name="anna")
    assert renamed == {"ok": True, "id": ann, "name": "anna"}
    muted = await call(rig, "/mute", caller, id=ann, peer_id="bob")
    assert muted == {"ok": True, "peer_id": other, "name": "bob", "muted": True}
    routed = {"id": ann, "route": "rewake", "activity": "busy"}
    assert await call(rig, "/set-route", caller, **routed) == {"ok": True}
    assert await call(rig, "/add-keys", caller, id=ann, keys=["resume:2"]) == {"ok": True}
    peer = rig.broker.roster.get(ann)
    assert (peer.route, peer.activity, peer.keys) == ("rewake", "busy", ("live:1", "resume:2"))
    second = await call(rig, "/register", Caller(knows_secret=True), keys=["live:1"])
    assert (second["id"], second["secondary"]) == (ann, True)


async def test_the_user_may_look_into_any_mailbox(rig):
    bob = await rig.joins_as_process(42)
    number = (await rig.send(bob[0])).message.id
    assert [message.id for message in await rig.broker.mail.peek(USER, bob[0])] == [number]
