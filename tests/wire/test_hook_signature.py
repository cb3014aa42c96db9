"""GitHub's signature of a post, by GitHub's own example, and what is none."""

import hashlib
import hmac

import pytest

from claude_peers.wire import hook_signature
from claude_peers.wire.hook_signature import sign, verify

# docs.github.com, "Validating webhook deliveries", section "Testing the webhook payload validation"
SECRET, BODY = "It's a Secret to Everybody", b"Hello, World!"
DIGITS = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_githubs_example_is_signed_as_github_signs_it():
    assert sign(SECRET, BODY) == f"sha256={DIGITS}"
    assert verify(SECRET, BODY, f"sha256={DIGITS}")


@pytest.mark.threat("T14")
@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        DIGITS,
        f"sha1={DIGITS}",
        f"sha256={DIGITS.upper()}",
        f"sha256={DIGITS} ",
        f"sha256={DIGITS}, sha256={DIGITS}",
        f"sha256={DIGITS[:-1]}8",
        f"sha256={DIGITS[:-1]}é",
        "sha256=\udc80",
        f"sha1={hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()}",
        f"sha256={hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()}",
    ],
)
def test_nothing_else_is_a_signature(signature):
    assert not verify(SECRET, BODY, signature)


@pytest.mark.threat("T14")
def test_a_signature_is_for_one_body_and_one_secret():
    assert not verify(SECRET, BODY + b" ", f"sha256={DIGITS}")
    assert not verify(SECRET + " ", BODY, f"sha256={DIGITS}")
    assert not verify("", BODY, f"sha256={DIGITS}")


@pytest.mark.threat("T37")
def test_signatures_are_compared_in_one_time_however_much_is_right(monkeypatch):
    compared = []
    monkeypatch.setattr(
        hook_signature.hmac, "compare_digest", lambda *both: compared.append(both) or True
    )
    assert verify(SECRET, BODY, "sha256=0")
    assert compared == [(f"sha256={DIGITS}".encode(), b"sha256=0")]
