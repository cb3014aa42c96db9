"""Every error becomes one answer, with its remedy."""

import pytest

from claude_peers.core.errors import (
    AmbiguousPeerError,
    BadRequestError,
    FencedError,
    IllegalTransitionError,
    MailboxFullError,
    NotYourPeerError,
    PeerNotFoundError,
    RateLimitedError,
    TextTooLongError,
)
from claude_peers.gateway.errors import (
    REASONS,
    SECURITY_HEADERS,
    Refusal,
    business_refusal,
    headers_for,
    reason,
    response_for,
)

REFUSAL = Refusal(
    405, "method_not_allowed", fact="Not so", remedy="Do so.", headers=(("Allow", "GET"),)
)

EXPECTED = [
    (BadRequestError("`id` is missing"), 400, "bad_request"),
    (PeerNotFoundError("abc"), 404, "peer_not_found"),
    (AmbiguousPeerError("x", ("a", "b")), 409, "peer_ambiguous"),
    (NotYourPeerError("abc"), 401, "not_your_peer"),
    (TextTooLongError(2, 1), 413, "text_too_long"),
    (MailboxFullError("abc", 1000), 429, "mailbox_full"),
    (RateLimitedError(120, 0.5), 429, "rate_limited"),
    (FencedError(), 503, "not_leader"),
    (REFUSAL, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("error", "status", "code"), EXPECTED, ids=lambda value: str(value)[:20])
def test_an_expected_failure_tells_fact_code_and_remedy(error, status, code):
    answered, body = response_for(error)
    assert answered == status
    assert body["code"] == code
    assert body["error"] == error.fact
    assert body["remedy"] == error.remedy
    assert reason(answered)


@pytest.mark.parametrize("error", [ValueError("secret path"), IllegalTransitionError("x")])
def test_an_unexpected_failure_tells_nothing(error):
    assert response_for(error) == (500, {"error": "internal error", "code": "internal"})
    assert headers_for(error) == ()


def test_a_wait_is_told_in_body_and_header():
    error = RateLimitedError(120, 0.50049)
    assert response_for(error)[1]["retry_after"] == 0.5
    assert headers_for(error) == (("Retry-After", "1"),)


def test_without_a_wait_neither_body_nor_header_speaks_of_one():
    error = PeerNotFoundError("abc")
    assert "retry_after" not in response_for(error)[1]
    assert headers_for(error) == ()


def test_a_refusal_brings_its_own_headers():
    assert headers_for(REFUSAL) == (("Allow", "GET"),)


def test_two_refusals_keep_their_own_status_and_code():
    other = Refusal(421, "wrong_host", fact="Other", remedy="Other.")
    assert (REFUSAL.http_status, REFUSAL.code) == (405, "method_not_allowed")
    assert (other.http_status, other.code) == (421, "wrong_host")
    assert str(other) == "Other. Other."


def test_a_business_refusal_is_what_upstream_clients_test_for():
    assert business_refusal(PeerNotFoundError("abc")) == {
        "ok": False,
        "error": "Peer abc not found",
        "code": "peer_not_found",
        "remedy": "Call list_peers for current ids and names.",
    }
    assert business_refusal(MailboxFullError("abc", 1000))["retry_after"] == 30.0


def test_no_header_lets_a_page_read_answers_or_names_the_server():
    names = {name.lower() for name, _ in SECURITY_HEADERS}
    assert names == {"cache-control", "x-content-type-options", "cross-origin-resource-policy"}


def test_a_status_we_never_send_has_no_reason():
    assert reason(299) == ""
    assert REASONS[421] == "Misdirected Request"
