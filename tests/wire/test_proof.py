"""Broker and client of one user prove themselves without telling the secret."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_peers.wire.proof import broker_proof, client_proof, proven_epoch, same

SECRET = b"s" * 32


@given(secret=st.binary(), nonce=st.text(), epoch=st.integers(0, 10**15 - 1))
@settings(deadline=None)
def test_a_brokers_proof_tells_its_epoch(secret, nonce, epoch):
    assert proven_epoch(secret, nonce, broker_proof(secret, nonce, epoch)) == epoch


@given(proof=st.text())
@settings(deadline=None)
def test_no_invented_proof_holds(proof):
    assert proven_epoch(SECRET, "nonce", proof) is None


def test_a_proof_of_another_secret_does_not_hold():
    assert proven_epoch(SECRET, "nonce", broker_proof(b"other", "nonce", 1)) is None


def test_a_recorded_proof_does_not_fit_another_nonce():
    assert proven_epoch(SECRET, "fresh", broker_proof(SECRET, "old", 1)) is None


def test_a_proof_does_not_hold_for_another_epoch():
    mac = broker_proof(SECRET, "nonce", 1).partition(" ")[2]
    assert proven_epoch(SECRET, "nonce", f"2 {mac}") is None


@pytest.mark.parametrize(
    "epoch", ["", "-1", "+1", "01", "1.0", "x", "\u0661", "1" * 16, "1" * 10_000, "\ud800"]
)
def test_an_epoch_that_no_broker_writes_does_not_hold(epoch):
    mac = broker_proof(SECRET, "nonce", 1).partition(" ")[2]
    assert proven_epoch(SECRET, "nonce", f"{epoch} {mac}") is None


def test_a_clients_answer_depends_on_secret_and_challenge():
    made = {client_proof(SECRET, "a"), client_proof(SECRET, "b"), client_proof(b"other", "a")}
    assert len(made) == 3
    assert client_proof(SECRET, "a") == client_proof(SECRET, "a")


def test_a_brokers_proof_cannot_be_played_back_as_a_clients():
    assert client_proof(SECRET, "nonce\n1") != broker_proof(SECRET, "nonce", 1).partition(" ")[2]
    assert client_proof(SECRET, "nonce") != broker_proof(SECRET, "nonce", 1).partition(" ")[2]


def test_nothing_of_the_secret_travels():
    told = broker_proof(SECRET, "nonce", 1) + client_proof(SECRET, "nonce")
    assert SECRET.decode() not in told and SECRET.hex() not in told


def test_only_equal_texts_are_the_same():
    assert same("a", "a")
    assert not same("a", "b")
    assert not same("a", "a\ud800")
