"""The posts of webhooks, checked by an implementation of Standard Webhooks that is not ours."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import standardwebhooks

from claude_peers.core.models import Message, Peer, PeerId
from claude_peers.core.webhooks import Format, Webhook
from claude_peers.wire.envelope import LABEL
from claude_peers.wire.webhook_posts import SECRET_BYTES, make_post, make_secret, retry_after

GOLDEN = Path(__file__).parents[1] / "golden" / "webhook-agentmesh-0.4.json"
NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC).timestamp()
SECRET = make_secret(bytes(range(SECRET_BYTES)))
MESSAGE = Message(
    id=7, uid="u7", from_id="abc12345", to_id=PeerId("xyz12345"), text="hook answers 200 🎉",
    sent_at="2026-11-27T12:00:00.000Z", expires_at=NOW + 86400, verified=True,
)  # fmt: skip
ANN = Peer(id=PeerId("abc12345"), name="ann")


def made(
    format_=Format.AGENTMESH,
    *,
    url="http://127.0.0.1:9/in?k=v",
    now=NOW,
    signature=None,
    **more,
):
    webhook = Webhook(peer_id=PeerId("x"), url=url, format=format_, secret=SECRET, **more)
    return make_post(webhook, MESSAGE, ANN, signature=signature, deliveries=4, now=now)


@pytest.mark.threat("T18")
@pytest.mark.parametrize("format_", Format)
def test_another_implementation_verifies_every_format(format_):
    now = datetime.now(UTC).timestamp()
    post = made(format_, now=now)
    verifier = standardwebhooks.Webhook(SECRET)
    assert verifier.verify(post.body, dict(post.headers)) == json.loads(post.body)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(post.body + b" ", dict(post.headers))


@pytest.mark.threat("T18", "T32")
def test_a_captured_post_is_refused_six_minutes_later():
    old = made(now=(datetime.now(UTC) - timedelta(minutes=6)).timestamp())
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(old.body, dict(old.headers))


@pytest.mark.threat("T18", "T32")
def test_the_verifier_of_the_documentation_takes_ours_and_nothing_else():
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    known = {}
    exec(text.partition("```python\n")[2].partition("```")[0], known)
    now = datetime.now(UTC).timestamp()
    post = made(now=now)
    headers = {name.lower(): value for name, value in post.headers}
    assert known["verified"](SECRET, headers, post.body)
    assert not known["verified"](SECRET, headers, post.body + b" ")
    old = made(now=now - 360)
    assert not known["verified"](SECRET, {n.lower(): v for n, v in old.headers}, old.body)


def test_our_signature_is_the_others():
    post = made()
    moment = datetime.fromtimestamp(NOW, UTC)
    theirs = standardwebhooks.Webhook(SECRET).sign("u7", moment, post.body.decode())
    assert dict(post.headers)["webhook-signature"] == theirs


def test_a_secret_is_what_the_specification_says():
    assert SECRET.startswith("whsec_")
    assert len(base64.b64decode(SECRET.removeprefix("whsec_"))) == 32


def test_the_default_body_is_agentmeshs():
    post, golden = made(), json.loads(GOLDEN.read_text())
    told = json.loads(post.body)
    assert told["type"] == golden["type"]
    assert list(told["message"])[: len(golden["message"])] == list(golden["message"])
    assert told["message"]["retry_count"] == 0
    assert told["message"]["max_retries"] == golden["message"]["max_retries"] == 3
    assert told["message"]["expires_at"] == "2026-11-28T12:00:00.000Z"
    assert told["message"]["text"] == golden["message"]["text"]
    assert told["message"]["signature"] is None
    assert post.path == "/in?k=v"


@pytest.mark.parametrize("format_", Format)
def test_only_agentmeshs_body_has_a_place_for_the_fleets_signature(format_):
    told = json.loads(made(format_, signature="f1ee7").body)
    assert told == json.loads(made(format_).body) or format_ is Format.AGENTMESH
    if format_ is Format.AGENTMESH:
        assert told["message"].pop("signature") == "f1ee7"
        assert "f1ee7" not in json.dumps(told)


def test_the_standard_body_is_flat_and_has_a_prompt_that_is_safe_to_show():
    told = json.loads(made(Format.STANDARD).body)
    assert (told["event_type"], told["from"], told["text"]) == (
        "claude_peers.message", "ann", MESSAGE.text,
    )  # fmt: skip
    assert told["prompt"].startswith(LABEL)


def test_openclaw_gets_a_turn_with_its_token_and_key_and_a_labelled_text():
    post = made(Format.OPENCLAW, url="http://127.0.0.1:18789", token="s3cret")
    headers, told = dict(post.headers), json.loads(post.body)
    assert post.path == "/hooks/agent"
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Idempotency-Key"] == headers["webhook-id"] == "u7"
    assert told["deliver"] is False
    assert told["message"].startswith(LABEL)
    assert MESSAGE.text in told["message"]
    assert made(Format.OPENCLAW).path == "/in?k=v"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("", None), ("soon", None), ("-1", None), ("٣", None),
        ("9" * 10, None), ("Fri, 27 Nov 2026 12:01:00 GMT", 60.0),
        ("Fri, 27 Nov 2026 11:00:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_a_pause_that_is_asked_for_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, now=NOW) == seconds
