"""Every expected failure says what happened and what to do, for people and for machines."""

import pytest

from claude_peers.core import errors
from claude_peers.core.errors import ClaudePeersError

EXAMPLES = [
    errors.BadRequestError("The body is empty"),
    errors.NotPossibleError("Message 1 is queued, not dead", "Only dead letters can be sent."),
    errors.SettingsError("CLAUDE_PEERS_PORT", "x", "Use a number."),
    errors.PeerNotFoundError("abc12345"),
    errors.AmbiguousPeerError("main", ("a (main)", "b (main)")),
    errors.NotYourPeerError("abc12345"),
    errors.SecretRequiredError(),
    errors.TextTooLongError(9, 8),
    errors.MailboxFullError("abc12345", 1000),
    errors.RateLimitedError(120, 0.5),
    errors.DedupeConflictError("k1"),
    errors.StoreError("The disk is full", "Free some space."),
    errors.FencedError(),
    errors.LoopGuardError(12, 3.5),
    errors.HopLimitError(20),
    errors.NameTakenError("main"),
    errors.MessageNotFoundError(7),
    errors.NoBrokerError("Nobody listens on port 7899", "Start a session."),
    errors.TooManyTopicsError("You have 64 subscriptions", "Unsubscribe from one."),
    errors.RetainedTooLongError(20_000, 16_384),
    errors.NoFleetSecretError(),
]


def subclasses(of: type) -> list[type]:
    found = [each for each in of.__subclasses__() if each.__module__ == errors.__name__]
    return found + [deeper for each in found for deeper in subclasses(each)]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_reads_as_a_fact_followed_by_a_remedy(error):
    assert str(error) == f"{error.fact}. {error.remedy}"
    assert not error.fact.endswith(".")
    assert error.remedy.endswith(".")


def test_every_kind_of_error_has_an_example_here():
    assert {type(error) for error in EXAMPLES} == set(subclasses(ClaudePeersError))


def test_every_kind_of_error_has_a_code_of_its_own():
    codes = [kind.code for kind in (ClaudePeersError, *subclasses(ClaudePeersError))]
    assert len(codes) == len(set(codes))


def test_every_error_has_the_http_status_of_a_failure():
    assert all(400 <= error.http_status < 600 for error in EXAMPLES)


def test_only_errors_that_pass_by_themselves_say_when_to_try_again():
    assert {error.code for error in EXAMPLES if error.retry_after is not None} == {
        "mailbox_full",
        "rate_limited",
        "loop_guard",
        "not_leader",
    }


def test_a_peer_that_is_not_found_is_told_in_upstreams_words():
    assert errors.PeerNotFoundError("zzz").fact == "Peer zzz not found"
    assert errors.PeerNotFoundError("zzz").target == "zzz"


def test_an_ambiguous_target_lists_its_candidates():
    error = errors.AmbiguousPeerError("main", ("a (main)", "b (main)"))
    assert error.candidates == ("a (main)", "b (main)")
    assert "a (main), b (main)" in str(error)


def test_a_bad_setting_names_variable_and_value():
    error = errors.SettingsError("CLAUDE_PEERS_PORT", "x y", "Use a number.")
    assert error.variable == "CLAUDE_PEERS_PORT"
    assert str(error) == "CLAUDE_PEERS_PORT='x y' cannot be used. Use a number."


def test_a_rate_limited_sender_learns_how_long_to_wait():
    error = errors.RateLimitedError(120, 0.25)
    assert error.retry_after == 0.25
    assert "more than 120 messages a minute" in str(error)


def test_a_bad_request_has_a_remedy_unless_it_brings_its_own():
    assert errors.BadRequestError("x").remedy == "Correct the request and send it again."
    assert errors.BadRequestError("x", "Send JSON.").remedy == "Send JSON."


def test_an_illegal_transition_is_a_bug_and_no_expected_failure():
    assert not issubclass(errors.IllegalTransitionError, ClaudePeersError)


def test_the_refusals_that_upstreams_clients_expect_as_200_are_those_of_a_message():
    assert {error.code for error in EXAMPLES if error.business} == {
        "peer_not_found",
        "peer_ambiguous",
        "text_too_long",
        "mailbox_full",
        "rate_limited",
        "loop_guard",
        "hop_limit",
        "dedupe_conflict",
        "too_many_topics",
        "retained_too_long",
        "no_fleet_secret",
    }
