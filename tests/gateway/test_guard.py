"""What a web page, a proxy or another user can send is refused before its body is read."""

from dataclasses import replace

import pytest

from claude_peers.core.limits import BODY
from claude_peers.gateway.errors import Refusal, headers_for
from claude_peers.gateway.framing import Head
from claude_peers.gateway.guard import Facts, check

FACTS = Facts(peer="127.0.0.1", uid=1000, own_uid=1000, port=7899)


def head(method="POST", path="/send-message", *, drop=(), length=2, **headers):
    """Return the head of a request that passes, with changes; `_` stands for `-` in names."""
    base = {"host": "127.0.0.1:7899", "accept": "*/*"}
    if method == "POST":
        base |= {"content-type": "application/json", "content-length": str(length)}
    base |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Head(
        method=method,
        target=path,
        path=path,
        version="1.1",
        headers={name: value for name, value in base.items() if name not in drop},
        content_length=length if method == "POST" else 0,
        keep_alive=True,
    )


def refusal(request, facts=FACTS):
    """Return why `request` is refused."""
    with pytest.raises(Refusal) as caught:
        check(request, facts)
    assert caught.value.fact and caught.value.remedy
    return caught.value


PASSES = {
    "a post": head(),
    "a post with a blank in its type": head(content_type="application/json \t; charset=utf-8"),
    "a post with a charset": head(content_type="Application/JSON; charset=utf-8"),
    "a get": head("GET", "/health"),
    "a head": head("HEAD", "/health"),
    "bun": head(user_agent="Bun/1.4.5", accept_encoding="gzip, deflate, br, zstd"),
    "agentmesh": head(authorization="Bearer 0f0f"),
    "node's fetch": head(sec_fetch_mode="cors", user_agent="node"),
    "a typed address": head("GET", "/", sec_fetch_site="none"),
    "an upgrade": head("GET", "/ws", connection="Upgrade", upgrade="websocket"),
    "localhost": head(host="LocalHost:7899"),
    "IPv6": head(host="[::1]:7899"),
    "a body of the largest size": head(length=BODY),
}

REFUSED = {
    "a rebound name": (head(host="evil.example:7899"), 421, "wrong_host"),
    "no host": (head(drop=("host",)), 421, "wrong_host"),
    "an empty host": (head(host=""), 421, "wrong_host"),
    "the address of all interfaces": (head(host="0.0.0.0:7899"), 421, "wrong_host"),
    "another port": (head(host="127.0.0.1:7898"), 421, "wrong_host"),
    "no port": (head(host="127.0.0.1"), 421, "wrong_host"),
    "a name that begins well": (head(host="localhost.evil.example:7899"), 421, "wrong_host"),
    "a rooted name": (head(host="localhost.:7899"), 421, "wrong_host"),
    "a page": (head(origin="https://evil.example"), 403, "from_a_browser"),
    "a local page": (head(origin="http://localhost:3000"), 403, "from_a_browser"),
    "our own page": (head(origin="http://127.0.0.1:7899"), 403, "from_a_browser"),
    "a sandboxed page": (head(origin="null"), 403, "from_a_browser"),
    "an empty origin": (head(origin=""), 403, "from_a_browser"),
    "a page that upgrades": (
        head("GET", "/ws", origin="https://e", upgrade="websocket"),
        403,
        "from_a_browser",
    ),
    "a picture on a page": (head("GET", "/", sec_fetch_site="cross-site"), 403, "from_a_browser"),
    "the same site": (head("GET", "/", sec_fetch_site="same-site"), 403, "from_a_browser"),
    "the same origin": (head("GET", "/", sec_fetch_site="same-origin"), 403, "from_a_browser"),
    "two answers": (head("GET", "/", sec_fetch_site="none, none"), 403, "from_a_browser"),
    "a preflight": (head("OPTIONS", "/send-message"), 403, "from_a_browser"),
    "a delete": (head("DELETE", "/peers"), 405, "method_not_allowed"),
    "a trace": (head("TRACE", "/"), 405, "method_not_allowed"),
    "a method in lower case": (head("post", "/"), 405, "method_not_allowed"),
    "a simple post of a page": (head(content_type="text/plain"), 415, "not_json"),
    "a form": (head(content_type="application/x-www-form-urlencoded"), 415, "not_json"),
    "files": (head(content_type="multipart/form-data; boundary=x"), 415, "not_json"),
    "JSON in name only": (head(content_type="text/plain; application/json"), 415, "not_json"),
    "almost JSON": (head(content_type="application/jsonp"), 415, "not_json"),
    "no type": (head(drop=("content-type",)), 415, "not_json"),
    "a body too large": (head(length=BODY + 1), 413, "body_too_large"),
    "no length": (head(drop=("content-length",), length=0), 411, "length_required"),
}

PROXY_HEADERS = [
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via", "x-real-ip",
    "tailscale-user-login", "cf-connecting-ip", "true-client-ip", "x-envoy-external-address",
    "x-original-host", "cdn-loop", "client-ip", "fastly-client-ip", "fly-client-ip",
    "forwarded-for", "x-client-ip", "x-cluster-client-ip",
]  # fmt: skip


@pytest.mark.parametrize("case", PASSES)
def test_what_clients_send_passes(case):
    check(PASSES[case], FACTS)


@pytest.mark.parametrize("case", REFUSED)
def test_what_clients_do_not_send_is_refused(case):
    request, status, code = REFUSED[case]
    refused = refusal(request)
    assert (refused.http_status, refused.code) == (status, code)


@pytest.mark.parametrize("name", PROXY_HEADERS)
@pytest.mark.threat("T36")
def test_a_request_through_a_proxy_counts_as_remote(name):
    refused = refusal(head("GET", "/health", **{name: "8.8.8.8"}))
    assert (refused.http_status, refused.code) == (401, "proxied")
    assert name in refused.fact
    assert "ssh -L 7899:127.0.0.1:7899 HOST" in refused.remedy


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_any_loopback_address_is_local(peer):
    check(head(), replace(FACTS, peer=peer))


@pytest.mark.parametrize("peer", ["192.168.0.7", "::2", "::ffff:10.0.0.1", "", "fe80::1", "1270.0"])
def test_any_other_address_is_not(peer):
    refused = refusal(head(), replace(FACTS, peer=peer))
    assert (refused.http_status, refused.code) == (401, "not_local")


@pytest.mark.parametrize(
    ("uid", "own", "token_ok", "code"),
    [
        (1000, 1000, None, None),
        (0, 0, None, None),
        (None, 1000, None, None),
        (1001, 1000, None, "other_user"),
        (0, 1000, None, "other_user"),
        (1000, 0, None, "other_user"),
        (1001, 1000, True, None),
        (1000, 1000, True, None),
        (1000, 1000, False, "invalid_token"),
        (None, 1000, False, "invalid_token"),
        (1001, 1000, False, "invalid_token"),
    ],
)
def test_only_the_same_user_or_a_token_passes(uid, own, token_ok, code):
    facts = replace(FACTS, uid=uid, own_uid=own, token_ok=token_ok)
    if code is None:
        check(head(), facts)
    else:
        refused = refusal(head(), facts)
        assert (refused.http_status, refused.code) == (401, code)


def test_a_bad_token_is_refused_in_upstreams_words():
    assert refusal(head(), replace(FACTS, token_ok=False)).fact == "invalid token"


def test_a_token_does_not_open_the_way_through_a_proxy():
    assert refusal(head(via="1.1 x"), replace(FACTS, token_ok=True)).code == "proxied"


@pytest.mark.threat("T36")
def test_what_is_signed_for_a_hook_may_come_by_a_tunnel_and_is_guarded_otherwise():
    facts = replace(FACTS, uid=0, signed=True, any_type=True, methods=("POST",))
    check(head(x_forwarded_for="192.0.2.7", cf_ray="1", content_type="text/plain"), facts)
    for request, code in (
        (head(host="hooks.example.com"), "wrong_host"),
        (head(origin="https://evil.example"), "from_a_browser"),
        (head("GET", via="1.1 x"), "method_not_allowed"),
        (head(via="1.1 x", length=BODY + 1), "body_too_large"),
    ):
        assert refusal(request, facts).code == code
    assert refusal(head(), replace(facts, peer="192.0.2.7")).code == "not_local"
    assert refusal(head(), replace(facts, token_ok=False)).code == "invalid_token"


@pytest.mark.threat("T3")
def test_the_first_broken_rule_is_the_one_told():
    request = head(
        "DELETE", "/x", host="e", origin="e", sec_fetch_site="cross-site", via="x", length=BODY + 1
    )
    facts = replace(FACTS, peer="8.8.8.8", uid=1)
    mend = [
        ({"host": "127.0.0.1:7899"}, {}),
        ({"origin": None}, {}),
        ({"sec-fetch-site": None}, {}),
        ({"via": None}, {}),
        ({}, {"peer": "127.0.0.1"}),
        ({}, {"uid": 1000}),
    ]
    told = []
    for headers, known in mend:
        told.append(refusal(request, facts).http_status)
        merged = {**request.headers, **headers}
        kept = {name: value for name, value in merged.items() if value is not None}
        request = replace(request, headers=kept)
        facts = replace(facts, **known)
    told.append(refusal(request, facts).http_status)
    assert told == [421, 403, 403, 401, 401, 401, 405]


def test_type_is_told_before_length():
    assert refusal(head(content_type="text/plain", length=BODY + 1)).http_status == 415


@pytest.mark.fault("F28")
def test_a_body_too_large_is_refused_on_any_method():
    request = replace(head("GET", "/health", content_length=str(BODY + 1)), content_length=BODY + 1)
    assert refusal(request).http_status == 413


def test_a_method_unknown_here_learns_the_known_ones():
    assert headers_for(refusal(head("PUT", "/"))) == (("Allow", "GET, HEAD, POST"),)


def test_a_form_learns_the_right_command():
    refused = refusal(head(content_type="application/x-www-form-urlencoded"))
    assert (
        "curl -H 'Content-Type: application/json' -d '{...}' http://127.0.0.1:7899/send-message"
        in refused.remedy
    )


def test_the_command_shown_names_the_path_that_was_asked_for():
    refused = refusal(head(path="/Az/09_.-", content_type="text/plain"))
    assert refused.remedy.endswith("http://127.0.0.1:7899/Az/09_.-")


def test_the_command_shown_holds_nothing_a_shell_would_run():
    refused = refusal(head(path="/x';$(reboot)", content_type="text/plain"))
    assert refused.remedy.endswith("http://127.0.0.1:7899/PATH")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.1:80"])
def test_the_port_may_be_left_out_where_http_leaves_it_out(host):
    check(head(host=host), replace(FACTS, port=80))


# A path that is for those with a token

WITH_TOKEN = replace(FACTS, needs_token=True, token_ok=True, methods=("POST",))
ADDRESSES = ["http://127.0.0.1:7899", "http://localhost:7899", "http://[::1]:7899"]


@pytest.mark.parametrize("origin", [*ADDRESSES, "HTTP://LocalHost:7899"])
def test_who_shows_a_token_may_name_our_own_address_as_origin(origin):
    check(head(origin=origin), WITH_TOKEN)
    assert refusal(head(origin=origin), replace(WITH_TOKEN, needs_token=False)).http_status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "", "null", "https://127.0.0.1:7899", "http://127.0.0.1:7898", "http://127.0.0.1",
        "http://evil.example", "http://127.0.0.1:7899.evil.example", "://127.0.0.1:7899",
        "127.0.0.1:7899", "http://", "http://x",
    ],
)  # fmt: skip
def test_no_token_makes_another_origin_ours(origin):
    refused = refusal(head(origin=origin), WITH_TOKEN)
    assert (refused.http_status, refused.code) == (403, "from_a_browser")


@pytest.mark.parametrize(
    ("token_ok", "fact", "asked"),
    [
        (None, "The request has no token", 'Bearer realm="claude-peers"'),
        (
            False,
            "The request has an unknown token",
            'Bearer realm="claude-peers", error="invalid_token"',
        ),
    ],
)
@pytest.mark.parametrize("uid", [1000, 1001, None])
def test_where_a_token_is_needed_nothing_else_counts(token_ok, fact, asked, uid):
    facts = replace(WITH_TOKEN, token_ok=token_ok, uid=uid)
    for request in (head(), head("GET"), head("OPTIONS"), head(content_type="text/plain")):
        refused = refusal(request, facts)
        assert (refused.http_status, refused.code, refused.fact) == (401, "invalid_token", fact)
        assert refused.headers == (("WWW-Authenticate", asked),)


def test_a_path_tells_the_methods_it_takes():
    refused = refusal(head("GET"), WITH_TOKEN)
    assert (refused.http_status, refused.headers) == (405, (("Allow", "POST"),))
    assert "POST" in refused.remedy


def test_another_machine_may_know_us_by_any_name():
    remote = replace(FACTS, remote=True, peer="192.168.0.7", uid=None)
    check(head(host="there:7899"), remote)
    assert refusal(head(host="there:7899"), replace(remote, remote=False)).http_status == 421
    for name, value in (("origin", "https://e"), ("via", "1.1 x")):
        assert refusal(head(host="there:7899", **{name: value}), remote).http_status in (401, 403)
