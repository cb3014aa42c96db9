"""What the user may ask for all peers, and by name."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.broker.operations import OPERATIONS
from claude_peers.core.delivery import Event
from claude_peers.core.errors import (
    AmbiguousPeerError,
    NotPossibleError,
    NotYourPeerError,
    PeerNotFoundError,
)

pytestmark = pytest.mark.anyio

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = Caller(knows_secret=True)


@pytest.fixture
async def rig():
    return await make_broker()


async def call(rig, path: str, caller=USER, **body):
    return await BY_PATH[path](rig.broker, caller, body)


async def died(rig, to_id: str, **fields) -> int:
    """Send a message that nobody reads in time; return its id."""
    message = (await rig.send(to_id, **fields)).message
    await rig.store.move(message.to_id, [message.id], Event.EXPIRE, now=rig.clock.wall())
    return message.id


# Names


async def test_the_user_renames_by_name_and_by_directory(rig):
    ann, _ = await rig.joins_as_process(41, name="ann", cwd="/p")
    for target, name in (("ann", "anna"), ("/p", "anne"), ("anna", "annie"), (ann, "nan")):
        renamed = await call(rig, "/rename", id=target, name=name)
        assert (renamed["id"], renamed["name"]) == (ann, name)


async def test_the_user_mutes_by_name(rig):
    ann, _ = await rig.joins_as_process(41, name="ann")
    bob, _ = await rig.joins_as_process(42, name="bob")
    await call(rig, "/mute", id="ann", peer_id="bob")
    assert rig.broker.roster.get(ann).muted == (bob,)


async def test_of_several_that_a_user_could_mean_none_is_renamed(rig):
    for pid in (41, 42):
        await rig.joins_as_process(pid, name=f"n{pid}", cwd="/p")
    with pytest.raises(AmbiguousPeerError, match="n41"):
        await call(rig, "/rename", id="/p", name="one")


async def test_a_name_that_nobody_has_is_not_found(rig):
    for path, body in (("/rename", {"name": "x"}), ("/dead-letters", {})):
        with pytest.raises(PeerNotFoundError):
            await call(rig, path, id="nobody", **body)


async def test_a_peer_manages_nobody_by_name(rig):
    ann = await rig.joins_as_process(41, name="ann")
    with pytest.raises(PeerNotFoundError):
        await call(rig, "/rename", ann[1], id="ann", name="anna")


async def test_the_user_finds_dead_letters_by_name_and_by_id(rig):
    bob, _ = await rig.joins_as_process(42, name="bob")
    await rig.joins_as_process(43, name="cid")
    number = await died(rig, bob)
    for target in ("bob", bob):
        (letter,) = (await call(rig, "/dead-letters", id=target))["dead_letters"]
        assert letter["id"] == number
    assert (await call(rig, "/dead-letters", id="cid"))["dead_letters"] == []


async def test_the_letters_of_a_peer_that_is_forgotten_are_found_by_its_id(rig):
    bob, caller = await rig.joins_as_process(42, name="bob")
    await died(rig, bob)
    await rig.broker.peers.unregister(caller, bob)
    await rig.broker.roster.forget(gone_since="9")
    (letter,) = (await call(rig, "/dead-letters", id=bob))["dead_letters"]
    assert letter["to_name"] is None


async def test_another_peer_finds_no_letters_by_name(rig):
    bob, _ = await rig.joins_as_process(42, name="bob")
    ann = await rig.joins_as_process(41, name="ann")
    await died(rig, bob)
    with pytest.raises(NotYourPeerError):
        await call(rig, "/dead-letters", ann[1], id=bob)
    assert (await call(rig, "/dead-letters", ann[1], id="bob"))["dead_letters"] == []


# Names of ends


async def test_history_and_dead_letters_tell_the_names_of_both_ends(rig):
    ann = await rig.joins_as_process(41, name="ann")
    bob, caller = await rig.joins_as_process(42, name="bob")
    await died(rig, bob, caller=ann[1], from_id=ann[0])
    await rig.send(ann[0])
    await call(rig, "/rename", id=ann[0], name="anna")
    await rig.broker.peers.unregister(caller, bob)
    shown = (await call(rig, "/history"))["messages"]
    assert [(m["from_name"], m["to_name"]) for m in shown] == [("anna", "bob"), (None, "anna")]
    (letter,) = (await call(rig, "/dead-letters"))["dead_letters"]
    assert (letter["from_name"], letter["to_name"]) == ("anna", "bob")


# History and roster


async def test_the_history_is_read_from_its_end(rig):
    bob, _ = await rig.joins_as_process(42)
    for _ in range(4):
        await rig.send(bob)
    shown = await call(rig, "/history", before=4, limit=2, newest=True)
    assert [message["id"] for message in shown["messages"]] == [2, 3]


async def test_who_is_gone_is_listed_only_when_asked_for(rig):
    ann, caller = await rig.joins_as_process(41, name="ann")
    await rig.joins_as_process(42, name="bob")
    await rig.broker.peers.unregister(caller, ann)
    here = await call(rig, "/list-peers")
    assert [(peer["name"], "presence" in peer) for peer in here] == [("bob", False)]
    known = await call(rig, "/list-peers", gone=True)
    assert [(peer["name"], peer.get("presence")) for peer in known] == [
        ("ann", "departed"),
        ("bob", None),
    ]


# The user's own peers


SHELL = {"keys": ("shell:1",), "proof": "the right answer"}


async def test_the_user_speaks_for_a_shell_and_for_no_agent(rig):
    shell = (await rig.join(name="bob", **SHELL)).peer.id
    agent = (await rig.join(name="ann", keys=("live:1",), proof="the right answer")).peer.id
    sent = await rig.send(agent, caller=USER, from_id=shell)
    assert sent.message.verified
    with pytest.raises(NotYourPeerError):
        await rig.send(shell, caller=USER, from_id=agent)
    with pytest.raises(NotYourPeerError):
        await rig.send(agent, caller=Caller(), from_id=shell)


async def test_nobody_mutes_itself(rig):
    bob = (await rig.join(name="bob")).peer.id
    with pytest.raises(NotPossibleError, match="bob cannot mute itself"):
        await rig.broker.peers.mute(USER, bob, "bob", muted=True)


async def test_a_polls_messages_tell_their_senders_name_to_who_can_acknowledge(rig):
    ann, ann_calls = await rig.joins_as_process(41, name="ann")
    bob, bob_calls = await rig.joins_as_process(42, name="bob")
    await rig.send(bob, caller=ann_calls, from_id=ann)
    await rig.send(bob)

    async def names(path, **more):
        answer = await BY_PATH[path](rig.broker, bob_calls, {"id": bob, **more})
        views = getattr(answer, "body", answer)["messages"]
        return [view.get("from_name") for view in views]

    assert await names("/peek-messages") == ["ann", None]
    assert await names("/poll-messages", ack_supported=True) == ["ann", None]
    await rig.send(bob, caller=ann_calls, from_id=ann)
    assert await names("/poll-messages") == [None]
