"""What became of mail in the predecessors, by the symptoms that their users saw."""

import os

import pytest
from support.brokers import Caller, make_broker
from support.inproc import Wire, running

from claude_peers.core.models import PeerId

pytestmark = pytest.mark.anyio
HOUR = 3600.0


@pytest.mark.bug("B4-4", "B4-5")
async def test_who_only_looks_for_hours_finds_its_mail_unread_and_no_dead_letter():
    rig = await make_broker()
    ann = (await rig.join(name="ann")).peer.id
    sent = (await rig.send(ann)).message.id

    for _ in range(23):
        rig.clock.passed += HOUR
        await rig.broker.peers.heartbeat(Caller(), ann)
        await rig.broker.tidy()
        assert await rig.unread(ann) == [sent]

    assert await rig.states(sent) == ["queued"]
    assert await rig.poll(ann) == [sent]


@pytest.mark.bug("B4-5")
async def test_mail_that_was_handed_out_and_not_acknowledged_comes_again_after_hours():
    rig = await make_broker()
    ann = (await rig.join(name="ann")).peer.id
    sent = (await rig.send(ann)).message.id

    for _ in range(3):
        assert await rig.poll(ann, ack_supported=True) == [sent]
        rig.clock.passed += HOUR
        await rig.broker.peers.heartbeat(Caller(), ann)
        await rig.broker.tidy()

    assert await rig.unread(PeerId(ann)) == [sent]


@pytest.mark.bug("U20")
@pytest.mark.parametrize("body", [{}, {"to": "ann"}, {"peer_id": "ann"}])
def test_a_request_without_a_recipient_is_told_which_field_is_missing(body):
    with running() as broker, Wire(broker.port) as wire:
        wire.ask("/register", {"name": "ann"})
        status, told = wire.ask("/send-message", {"from_id": "cli", "text": "hi", **body})
        assert (status, told["error"]) == (400, "`to_id` is missing")
        assert broker.run(broker.store.ledger()).accepted == 0


@pytest.mark.bug("U2", "U3")
def test_an_unmodified_client_that_registers_again_keeps_id_and_mail():
    with running() as broker, Wire(broker.port) as wire:
        body = {"pid": os.getpid(), "cwd": "/w", "git_root": None, "tty": None, "summary": ""}
        first = wire.ask("/register", body)[1]["id"]
        wire.ask("/send-message", {"from_id": "cli", "to_id": first, "text": "kept"})
        again = wire.ask("/register", body)[1]["id"]
        (message,) = wire.ask("/poll-messages", {"id": again})[1]["messages"]
        assert message["text"] == "kept"
        sent = {"from_id": "cli", "to_id": first, "text": "to the old id"}
        assert wire.ask("/send-message", sent)[1]["ok"]
