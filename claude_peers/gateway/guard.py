"""Who may ask this broker anything, decided from a request's head, before its body is read.

The port is open to every program of the machine: to other users, and to every web page in the
user's browser, which can send requests here although it cannot read the answers. The rules below
hold for every path, upgrades included, and refuse in this order; the clients we know, those of
other implementations included, pass them without a token because they send none of what only
browsers and proxies send.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from claude_peers.core.limits import BODY
from claude_peers.gateway.errors import Refusal
from claude_peers.gateway.framing import Head

_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HTTP_PORT = 80
METHODS = ("GET", "HEAD", "POST")
_PROXY_HEADERS = frozenset(
    {
        "cdn-loop",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "forwarded-for",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-real-ip",
    }
)
_PROXY_PREFIXES = ("x-forwarded", "x-original-", "x-envoy-", "tailscale-", "cf-")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/_.-]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about the connection a request came on.

    Attributes:
        peer: the address at the other end.
        uid: the user at the other end, None where the system does not tell.
        own_uid: the user of this broker.
        port: the port the connection came in on.
        remote: whether it came through TLS, from a machine whose signature has been seen to.
        token_ok: whether the token the request carries is a peer's; None if it carries none, or
            none that matters.
        misplaced: whether the token is a hook's, which does not open the path's topic.
        methods: what the path takes; all we know if there is no such path.
        needs_token: whether the path is for peers that show their token. No page has one, so
            there a request may name our own address as its origin, as MCP clients do.
        any_type: whether the path takes more than JSON, and sees to that itself.
        signed: whether the sender has signed the body for a hook, which sees to that once it has
            it. Who signs need not be this user or this machine: GitHub comes through a tunnel.
    """

    peer: str
    uid: int | None
    own_uid: int
    port: int
    remote: bool = False
    token_ok: bool | None = None
    misplaced: bool = False
    methods: tuple[str, ...] = METHODS
    needs_token: bool = False
    any_type: bool = False
    signed: bool = False


def check(head: Head, facts: Facts) -> None:
    """Let a request pass.

    Raises:
        Refusal: the first rule it breaks, with the remedy.
    """
    for rule in _RULES:
        rule(head, facts)


def _host(head: Head, facts: Facts) -> None:
    if facts.remote:  # the name is whatever that machine knows us by, and no page has its token
        return
    if head.headers.get("host", "").lower() not in _addresses(facts):
        raise Refusal(
            421,
            "wrong_host",
            fact="The Host header does not name this broker",
            remedy=f"Use http://127.0.0.1:{facts.port} as the address.",
        )


def _addresses(facts: Facts) -> list[str]:
    """Return what this broker is called in a URL."""
    names = [f"{name}:{facts.port}" for name in _NAMES]
    return [*names, *_NAMES] if facts.port == _HTTP_PORT else names


def _origin(head: Head, facts: Facts) -> None:
    scheme, _, origin = head.headers.get("origin", "").lower().partition("://")
    if facts.needs_token and scheme == "http" and origin in _addresses(facts):
        return
    if "origin" in head.headers:
        raise _from_a_browser("The request has an Origin header, as web pages send")


def _fetch_site(head: Head, _facts: Facts) -> None:
    if head.headers.get("sec-fetch-site", "none") != "none":
        raise _from_a_browser("The request was made by a web page (Sec-Fetch-Site)")


def _proxy(head: Head, facts: Facts) -> None:
    if facts.signed:
        return
    for name in head.headers:
        if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES):
            raise _from_elsewhere(
                "proxied", f"The request came through a proxy (header {name[:64]})", port=facts.port
            )


def _source(_head: Head, facts: Facts) -> None:
    if not (facts.remote or facts.peer == "::1" or facts.peer.startswith(("127.", "::ffff:127."))):
        raise _from_elsewhere(
            "not_local", "The request comes from another machine", port=facts.port
        )


def _token(_head: Head, facts: Facts) -> None:
    if facts.misplaced:
        raise Refusal(
            401,
            "invalid_token",
            fact="The token does not open this topic",
            remedy=(
                "Post to a topic that it was made for, or use a token for this one: "
                "`claude-peers hook-token TOPIC` prints a new one."
            ),
            headers=(
                ("WWW-Authenticate", 'Bearer realm="claude-peers", error="insufficient_scope"'),
            ),
        )
    if facts.needs_token and not facts.token_ok:
        told = "no" if facts.token_ok is None else "an unknown"
        reason = "" if facts.token_ok is None else ', error="invalid_token"'
        raise Refusal(
            401,
            "invalid_token",
            fact=f"The request has {told} token",
            remedy=(
                "Send Authorization: Bearer with a token; `claude-peers token NAME` prints a "
                "client's configuration with a new one, `claude-peers hook-token` one for a hook."
            ),
            headers=(("WWW-Authenticate", f'Bearer realm="claude-peers"{reason}'),),
        )


def _user(_head: Head, facts: Facts) -> None:
    if facts.token_ok is False:
        raise Refusal(
            401,
            "invalid_token",
            fact="invalid token",  # upstream's words (agentmesh broker.ts), clients show them
            remedy="Send the token that /register returned, or no Authorization header.",
        )
    # Root is another user too: what relays for strangers runs as root.
    trusted = facts.token_ok or facts.signed
    if not trusted and facts.uid is not None and facts.uid != facts.own_uid:
        raise Refusal(
            401,
            "other_user",
            fact=f"This broker belongs to uid {facts.own_uid}, the request to uid {facts.uid}",
            remedy="Run claude-peers as yourself; CLAUDE_PEERS_PORT chooses a port of your own.",
        )


def _options(head: Head, _facts: Facts) -> None:
    if head.method == "OPTIONS":
        raise _from_a_browser("OPTIONS asks leave for a web page, and no web page has it")


def _method(head: Head, facts: Facts) -> None:
    if head.method not in facts.methods:
        allowed = ", ".join(facts.methods)
        raise Refusal(
            405,
            "method_not_allowed",
            fact="The path does not take this method",
            remedy=f"Use one of {allowed}.",
            headers=(("Allow", allowed),),
        )


def _type(head: Head, facts: Facts) -> None:
    if facts.any_type or head.method != "POST":
        return
    given = head.headers.get("content-type", "")
    if given.partition(";")[0].strip(" \t").lower() == "application/json":
        return
    # Shown in a command line that people paste, so nothing a shell would act upon.
    path = head.path if _PLAIN_PATH.fullmatch(head.path) else "/PATH"
    raise Refusal(
        415,
        "not_json",
        fact="A POST needs the header Content-Type: application/json",
        remedy=(
            "Use this command: curl -H 'Content-Type: application/json' "
            f"-d '{{...}}' http://127.0.0.1:{facts.port}{path}"
        ),
    )


def _length(head: Head, _facts: Facts) -> None:
    if head.content_length > BODY:
        raise Refusal(
            413,
            "body_too_large",
            fact=f"The body has {head.content_length} bytes, the limit is {BODY}",
            remedy="Put the long part in a file and send its path.",
        )
    if head.method == "POST" and "content-length" not in head.headers:
        raise Refusal(
            411,
            "length_required",
            fact="A POST needs a Content-Length header",
            remedy="Send the body in one piece, with a Content-Length header.",
        )


_RULES: tuple[Callable[[Head, Facts], None], ...] = (
    _host,
    _origin,
    _fetch_site,
    _proxy,
    _source,
    _token,
    _user,
    _options,
    _method,
    _type,
    _length,
)


def _from_a_browser(fact: str) -> Refusal:
    return Refusal(
        403,
        "from_a_browser",
        fact=fact,
        remedy="Web pages may not use this broker; use the command line, or curl.",
    )


def _from_elsewhere(code: str, fact: str, *, port: int) -> Refusal:
    return Refusal(
        401,
        code,
        fact=fact,
        remedy=(
            f"Connect to http://127.0.0.1:{port} directly; from another machine through "
            f"`ssh -L {port}:127.0.0.1:{port} HOST`."
        ),
    )
