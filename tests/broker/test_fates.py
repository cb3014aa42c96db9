"""What `claude-peers why` says of a message, for every fate there is: files in `golden/why`."""

from pathlib import Path

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.registration import hash_token
from claude_peers.core.delivery import DELIVERIES, DIRECT_TTL
from claude_peers.wire import story

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent.parent / "golden" / "why"
BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)
KEYED = {"proof": "the right answer", "keys": ("resume:1",)}


class Talk:
    """Ann writes to Bob; a second passes with each thing that happens."""

    def __init__(self, rig):
        self.rig = rig
        self.names = {}

    async def begin(self):
        self.ann, self.ann_calls = await self.peer("ann", 41)
        self.bob, self.bob_calls = await self.peer("bob", 42, route="rewake")

    async def peer(self, name, pid, **fields):
        peer_id, caller = await self.rig.joins_as_process(pid, name=name, **fields)
        self.names[peer_id] = f"<{name}>"
        return peer_id, caller

    async def call(self, path, caller, **body):
        self.rig.clock.passed += 1
        answer = await BY_PATH[path](self.rig.broker, caller, body)
        await self.rig.settled()
        return answer

    async def sent(self, to="bob", **more):
        body = {"from_id": self.ann, "to_id": to, "text": "hi", **more}
        return (await self.call("/send-message", self.ann_calls, **body))["message_id"]

    async def happens(self, path, number, **more):
        await self.call(path, self.bob_calls, id=self.bob, message_ids=[number], **more)

    async def polled(self, *, whole):
        self.rig.clock.passed += 1
        return await self.rig.poll(self.bob, self.bob_calls, whole=whole, ack_supported=True)

    async def why(self, number):
        text = story.told(await self.call("/message-status", USER, message_id=number))
        for peer_id, name in self.names.items():
            text = text.replace(peer_id, name)
        return f"{text}\n"


@pytest.fixture
async def talk():
    begun = Talk(await make_broker())
    await begun.begin()
    return begun


async def queued_for_a_peer_without_a_route(talk):
    await talk.peer("cid", 43)
    return await talk.sent("cid")


async def pushed_and_not_seen(talk):
    number = await talk.sent()
    await talk.happens("/pushed-messages", number, via="rewake")
    await talk.happens("/pushed-messages", number, via="rewake again")
    return number


async def seen_in_a_tool_result(talk):
    number = await talk.sent()
    await talk.polled(whole=True)
    await talk.happens("/ack-messages", number, via="check_messages")
    return number


async def seen_by_a_receipt(talk):
    number = await talk.sent()
    await talk.happens("/pushed-messages", number, via="rewake")
    await talk.happens("/ack-messages", number, via="rewake receipt")
    return number


async def answered(talk):
    number = await talk.sent(intent="request")
    await talk.happens("/pushed-messages", number, via="channel")
    body = {"from_id": talk.bob, "to_id": "ann", "text": "ok", "reply_to": number}
    await talk.call("/send-message", talk.bob_calls, **body)
    return number


async def came_back_from_a_broken_answer(talk):
    number = await talk.sent()
    await talk.polled(whole=False)
    return number


async def leased(talk):
    number = await talk.sent()
    await talk.polled(whole=True)
    return number


async def held_by_a_mute(talk):
    await talk.call("/mute", talk.bob_calls, id=talk.bob, peer_id="ann")
    return await talk.sent()


async def expired(talk):
    number = await talk.sent()
    talk.rig.clock.passed += DIRECT_TTL
    await talk.rig.broker.tidy()
    return number


async def given_up(talk):
    number = await talk.sent()
    for _ in range(DELIVERIES + 1):
        await talk.polled(whole=False)
    return number


async def waits_for_who_is_away(talk):
    joined = await talk.rig.join(name="cid", route="rewake", **KEYED)
    talk.names[joined.peer.id] = "<cid>"
    caller = Caller(token_hash=hash_token(joined.token))
    await talk.call("/unregister", caller, id=joined.peer.id)
    return await talk.sent("cid")


async def passed_on_to_the_next_holder_of_the_name(talk):
    cid, caller = await talk.peer("cid", 43, cwd="/p")
    await talk.call("/unregister", caller, id=cid)
    number = await talk.sent("cid")
    await talk.peer("cid", 44, cwd="/p", route="channel")
    return number


FATES = (
    queued_for_a_peer_without_a_route,
    pushed_and_not_seen,
    seen_in_a_tool_result,
    seen_by_a_receipt,
    answered,
    came_back_from_a_broken_answer,
    leased,
    held_by_a_mute,
    expired,
    given_up,
    waits_for_who_is_away,
    passed_on_to_the_next_holder_of_the_name,
)


@pytest.mark.parametrize("fate", FATES, ids=lambda fate: fate.__name__)
async def test_a_messages_fate_is_told(talk, fate):
    told = await talk.why(await fate(talk))
    assert told == (GOLDEN / f"{fate.__name__}.txt").read_text(encoding="utf-8")
    assert (await talk.rig.store.ledger()).balanced


def test_no_file_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == {fate.__name__ for fate in FATES}
