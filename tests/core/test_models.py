"""Records cannot be changed, and the ledger knows whether a message is missing."""

from dataclasses import FrozenInstanceError, fields

import pytest

from claude_peers.core.models import (
    UNREAD,
    Draft,
    Ledger,
    Message,
    Peer,
    PeerId,
    Presence,
    Process,
    Receipt,
    State,
    Trust,
)

MESSAGE = Message(id=1, uid="u", from_id="a", to_id=PeerId("b"), text="hi", sent_at="now")
RECORDS = [
    Process(pid=1, started="7"),
    Peer(id=PeerId("a"), name="main"),
    Draft(from_id="a", to_id=PeerId("b"), text="hi", sent_at="now", expires_at=1.0),
    MESSAGE,
    Receipt(message=MESSAGE),
    Ledger(accepted=0, purged=0),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_cannot_be_changed(record):
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(record)[0].name, None)


def test_a_ledger_balances_when_every_accepted_message_is_in_a_state_or_purged():
    assert Ledger(accepted=5, purged=2, states={State.QUEUED: 1, State.DEAD: 2}).balanced


@pytest.mark.parametrize("accepted", [4, 6])
def test_a_ledger_shows_a_lost_and_an_invented_message(accepted):
    assert not Ledger(accepted=accepted, purged=2, states={State.SEEN: 3}).balanced


def test_an_empty_ledger_balances():
    assert Ledger(accepted=0, purged=0).balanced


def test_a_message_is_unread_until_its_recipient_or_time_has_ended_it():
    assert set(State) - set(UNREAD) == {State.SEEN, State.ANSWERED, State.DEAD}


def test_a_new_message_is_queued_and_from_nobody_known():
    assert MESSAGE.state is State.QUEUED
    assert not MESSAGE.verified


def test_a_new_peer_is_present_and_trusted_least():
    peer = Peer(id=PeerId("a"), name="main")
    assert (peer.presence, peer.trust, peer.process) == (Presence.PRESENT, Trust.OPEN, None)
