"""`POST /hook/TOPIC` from a sender that signs, as GitHub does, and perhaps through a tunnel."""

import contextlib
import hashlib
import hmac
import json

import pytest
from support import http
from support.inproc import BOUND, Wire, head, running
from support.waiting import eventually

from claude_peers.gateway.connection import Deadlines
from claude_peers.gateway.places import LATER, Places
from claude_peers.wire.hook_signature import sign

BODY = json.dumps({"ref": "refs/heads/main", "after": "0" * 40}).encode()
JSON = "application/json"
TUNNEL = {
    "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "Cf-Ray": "1",
    "Cdn-Loop": "cloudflare",
}  # fmt: skip


@pytest.fixture
def broker():
    with running() as serving:
        yield serving


class Scene:
    """A subscriber of `github/#`, and a hook that takes signatures for it."""

    def __init__(self, broker) -> None:
        self.broker = broker
        self.ann = http.post(broker.port, "/register", {"name": "ann"}).json()["id"]
        http.post(broker.port, "/subscribe", {"id": self.ann, "topic": "#"})
        _, self.token = broker.run(broker.broker.hooks.make("gh", "github/#", signed=True))

    def post(self, body=BODY, *, path="/hook/github/push", signature=None, **more):
        """Post as GitHub does, with these headers besides."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/0a1b2c3",
            "X-GitHub-Event": "push",
            "X-Hub-Signature": f"sha1={hmac.new(self.token.encode(), body, 'sha1').hexdigest()}",
            "X-Hub-Signature-256": signature or sign(self.token, body),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        given = {name: value for name, value in headers.items() if value}
        return http.post(self.broker.port, path, body, given)

    def mail(self):
        told = http.post(self.broker.port, "/peek-messages", {"id": self.ann}).json()
        return [(each["from_id"], each["topic"], each["text"]) for each in told["messages"]]


@pytest.fixture
def here(broker):
    return Scene(broker)


def test_a_signed_post_is_published_as_it_came_and_a_redelivery_once(here):
    for delivery in ("72d3162e", "72d3162e", "5c4e8a10"):
        answer = here.post(X_GitHub_Delivery=delivery)
        assert (answer.status, answer.json()) == (202, {"ok": True, "messages": 1, "refused": 0})
    assert here.mail() == [("hook:gh", "github/push", BODY.decode())] * 2


@pytest.mark.threat("T36")
def test_a_tunnel_brings_what_is_signed_and_nothing_else(here):
    assert here.post(**TUNNEL).status == 202
    forged = here.post(signature=sign("guessed", BODY), **TUNNEL)
    assert (forged.status, forged.json()["code"]) == (401, "invalid_signature")
    bearer = {"Authorization": f"Bearer {here.token}"}
    for given in ({"X_Hub_Signature_256": ""}, {"X_Hub_Signature_256": "", **bearer}, bearer):
        refused = here.post(**{**given, **TUNNEL})
        assert (refused.status, refused.json()["code"]) == (401, "proxied")
    for path in ("/send-message", "/list-peers", "/register", "/hook", "/hooks/github/push"):
        assert here.post(path=path, **TUNNEL).json()["code"] == "proxied"
    assert here.post(Host="hooks.example.com", **TUNNEL).status == 421
    assert here.post(Origin="https://evil.example").status == 403
    assert len(here.mail()) == 1


@pytest.mark.threat("T14")
def test_a_signature_of_something_else_is_refused_and_told_what_to_do(here):
    _, other = here.broker.run(here.broker.broker.hooks.make("other", "other", signed=True))
    _, shown = here.broker.run(here.broker.broker.hooks.make("shown", "github/#"))
    for given in (
        here.post(BODY + b" ", signature=sign(here.token, BODY)),
        here.post(signature=sign(other, BODY)),
        here.post(signature=sign(shown, BODY)),
        here.post(path="/hook/other"),
        here.post(path="/hook/nobodys"),
        here.post(signature=hmac.new(here.token.encode(), BODY, hashlib.sha256).hexdigest()),
    ):
        told = given.json()
        assert (given.status, told["code"]) == (401, "invalid_signature")
        assert "hook-token TOPIC --signed" in told["remedy"]
    assert here.mail() == []


@pytest.mark.threat("T14")
def test_sha1_is_no_signature(here):
    refused = here.post(X_Hub_Signature_256="")
    assert (refused.status, refused.json()["code"]) == (401, "invalid_token")
    assert here.mail() == []


def test_where_no_hook_takes_signatures_a_signed_post_is_one_without_a_token(here):
    here.broker.run(here.broker.broker.hooks.make("gh", "github/#"))
    assert here.post().json()["code"] == "invalid_token"
    assert here.post(**TUNNEL).json()["code"] == "proxied"


def test_a_token_that_is_shown_is_the_one_that_counts(here):
    wrong = here.post(Authorization="Bearer wrong")
    assert (wrong.status, wrong.json()["code"]) == (401, "invalid_token")
    right = here.post(signature="sha256=0", Authorization=f"Bearer {here.token}")
    assert right.status == 202


@pytest.mark.threat("T14")
def test_a_token_on_a_topic_that_it_does_not_open_is_told_so_and_no_topic(here):
    told = here.post(path="/hook/build/done", Authorization=f"Bearer {here.token}")
    assert (told.status, told.json()["code"]) == (401, "invalid_token")
    assert told.json()["error"] == "The token does not open this topic"
    assert told.headers["www-authenticate"].endswith('error="insufficient_scope"')
    assert "github" not in told.text
    assert here.mail() == []


def test_a_hook_that_is_revoked_as_the_body_comes_takes_it_no_more(here):
    """The head was let in, and what it showed no longer counts."""
    port = here.broker.port
    head = (
        f"POST /hook/github/push HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {here.token}\r\nContent-Type: text/plain\r\n"
        "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    with Wire(port) as wire:
        wire.send(head.encode())
        assert wire.socket.recv(4096).startswith(b"HTTP/1.1 100 ")
        here.broker.run(here.broker.broker.hooks.revoke("gh"))
        wire.send(b"hi")
        assert wire.socket.recv(4096).startswith(b"HTTP/1.1 401 ")
    assert here.mail() == []


# Whoever guesses, and takes its time


def begin(port, *, signature="sha256=00", **more):
    """Send the head of a signed post through a tunnel, and nothing of its body."""
    wire = Wire(port)
    given = {"Content_Type": "application/json", "Content_Length": str(len(BODY)), **TUNNEL}
    given |= {"X_Hub_Signature_256": signature, **more}
    wire.send(head(port, "POST", "/hook/github/push", **given))
    return wire


def awaited(broker, count):
    eventually(lambda: sum(each.caller.unjudged for each in broker.server._connections) == count)


@pytest.mark.threat("T24")
def test_posts_whose_signature_is_not_judged_yet_are_strangers_who_are_so_many():
    places = Places(requests=4, streams=4, together=20, strangers=2)
    with running(places=places) as broker, contextlib.ExitStack() as open_:
        here = Scene(broker)
        slow = [open_.enter_context(begin(broker.port)) for _ in range(2)]
        awaited(broker, 2)
        for _ in range(2 * places.requests):  # each is refused at once, and lingers
            status, headers, body = open_.enter_context(begin(broker.port)).answer()
            assert (status, json.loads(body)["code"]) == (503, "crowded")
            assert headers["retry-after"] == str(round(LATER))
        assert http.get(broker.port, "/health", timeout=BOUND).status == 200
        slow[0].send(BODY)
        assert slow[0].answer()[0] == 401  # what was judged is no stranger, though it stays open
        assert here.post(**TUNNEL).status == 202
        again = open_.enter_context(begin(broker.port))
        again.send(BODY)
        assert again.answer()[0] == 401


@pytest.mark.threat("T24")
def test_the_body_of_a_signed_post_has_to_come_soon():
    with running(deadlines=Deadlines(unjudged=0.05)) as broker, Wire(broker.port) as usual:
        here = Scene(broker)
        request = head(broker.port, "POST", "/list-peers", Content_Length="2", Content_Type=JSON)
        usual.send(request)
        with begin(broker.port) as slow, pytest.raises((EOFError, ConnectionResetError)):
            slow.answer()
        usual.send(b"{}")
        assert usual.answer()[0] == 200
        assert here.post(**TUNNEL).status == 202
