"""What the simulation has found, each as the shortest test that shows it."""

import pytest
from support.brokers import Caller, make_broker

from claude_peers.core.errors import PeerNotFoundError
from claude_peers.core.models import Presence, State

pytestmark = pytest.mark.anyio


async def test_a_send_that_is_stored_is_not_refused_because_the_look_at_its_recipient_fails():
    rig = await make_broker()
    peer_id, _ = await rig.joins_as_process(100, name="bob")
    rig.machine.end(100)
    rig.store.broken.add("save_peer")
    receipt = await rig.send(peer_id, "hello", dedupe_key="k1")
    assert (await rig.store.message(receipt.message.id)).state is State.QUEUED
    rig.store.broken.clear()
    await rig.broker.peers.sweep()
    assert rig.broker.roster.get(peer_id).presence is not Presence.PRESENT


async def test_a_successor_that_comes_while_a_message_is_stored_is_not_forgotten_again():
    rig = await make_broker()
    proven = {"keys": ("resume:bob",), "proof": "the right answer", "name": "bob"}
    peer_id, _ = await rig.joins_as_process(100, **proven)
    rig.machine.end(100)
    accept, successor = rig.store.accept, Caller(processes=(rig.machine.start(101),))

    async def accept_slowly(*given, **more):
        receipt = await accept(*given, **more)
        assert (await rig.join(successor, pid=101, **proven)).peer.id == peer_id
        return receipt

    rig.store.accept = accept_slowly
    await rig.send(peer_id, "hello")
    known = rig.broker.roster.get(peer_id)
    assert (known.presence, known.pid) == (Presence.PRESENT, 101)


async def test_nobody_can_write_to_a_peer_whose_registration_is_not_stored_yet():
    rig = await make_broker()
    save, refused = rig.store.save_peer, []

    async def save_after_a_send(peer):
        with pytest.raises(PeerNotFoundError) as error:
            await rig.send("bob", "hello")
        refused.append(error)
        await save(peer)

    rig.store.save_peer = save_after_a_send
    peer_id = (await rig.join(name="bob")).peer.id
    assert len(refused) == 1
    assert (await rig.send("bob", "hello")).message.to_id == peer_id
