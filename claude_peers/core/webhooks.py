"""Webhooks: where the broker may post to, what an answer means, and when it tries again.

Whoever names an address makes the broker, which runs as its user, ask it. So the broker posts to
this machine only, never to itself, and elsewhere only where the user has said so
(`CLAUDE_PEERS_WEBHOOK_ALLOW`). A name is resolved for each post, and what it resolves to is judged
as well: a name may mean another address by then. Python's `is_global` and `is_private` are not
asked, as they differ between its versions; the networks are named here.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.models import PeerId

WITHIN = 5.0
"""Seconds for one post, from looking up the name to the answer's head."""
FIRST_DELAY = 1.0
"""Seconds of the first pause after a failure, at most; each further one is twice as long."""
LONGEST_DELAY = 3600.0
LONGEST_REFUSED = 30.0
"""Seconds between two tries of a message that the receiver will not have: others wait behind it."""
LONGEST_ASKED = 24 * 3600.0
"""Seconds of a pause that a receiver may ask for."""
URL = 2048
"""Characters of an address."""
TOKEN = 1024
"""Characters of a receiver's token."""
WEBHOOKS = 256
"""Peers with a webhook."""
HOOK_TOKENS = 256

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)")
_NEVER = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/3",
            "::/128", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "fe80::/10", "fec0::/10",
            "ff00::/8", "fd00:ec2::254/128",
        ),
    )
)  # fmt: skip
"""Unspecified, link-local (with the clouds' metadata), multicast, reserved, IPv4 in disguise."""
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_LOCALHOST = "localhost"

Address = IPv4Address | IPv6Address


class Format(StrEnum):
    """What a receiver understands."""

    AGENTMESH = "agentmesh"
    """agentmesh's body, `{"type": "agentmesh.message", "message": {...}}`."""
    STANDARD = "standard"
    """A flat body whose fields a prompt can name, as Hermes has it."""
    OPENCLAW = "openclaw"
    """A turn of an OpenClaw agent, `POST /hooks/agent`."""


class Outcome(StrEnum):
    """What came of one post."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"
    """Not this message, and probably never."""
    GONE = "gone"
    """No message any more: 410."""


class WebhookRefusedError(ClaudePeersError):
    """The broker does not post to this address."""

    code = "webhook_refused"
    http_status = 403

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(
            fact,
            remedy
            or "Use http://127.0.0.1:PORT/PATH, or let the user allow the host with "
            "CLAUDE_PEERS_WEBHOOK_ALLOW where claude-peers is started.",
        )


class HookTokenNotFoundError(ClaudePeersError):
    """There is no hook token of this name."""

    code = "hook_token_not_found"
    http_status = 404

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no hook token {name}", "`claude-peers hook-token --list` lists them."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where a peer has its mail posted to.

    Attributes:
        secret: `whsec_` and base64; what each post is signed with, so it is kept as it is.
        token: what the receiver wants as `Authorization: Bearer`, "" for nothing.
        problem: why nothing is posted any more, "" while it is.
    """

    peer_id: PeerId
    url: str
    format: Format = Format.AGENTMESH
    secret: str
    token: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookToken:
    """Who may publish by `POST /hook/TOPIC`.

    Attributes:
        name: as whom it publishes, `hook:NAME`.
        topic: what it may publish to; a pattern allows all that it matches.
        token_hash: SHA-256 of the token, hexadecimal.
        secret: the token itself where senders may sign with it, as it is needed then; else "".
        created_at: ISO 8601, UTC.
    """

    name: str
    topic: str
    token_hash: str
    secret: str = field(default="", repr=False)
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """An address in its only reading; `path` has the query with it."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as a `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the user and the machine decide about addresses.

    Attributes:
        own_port: the broker's, to which nothing is posted.
        allowed: hosts, or `host:port`, that the user allows beside this machine.
    """

    own_port: int = 0
    allowed: Collection[str] = ()

    def allows(self, target: Target) -> bool:
        """Whether the user has named the host."""
        return target.host in self.allowed or f"{target.host}:{target.port}" in self.allowed


def read_target(url: str) -> Target:
    """Return an address as read.

    Raises:
        WebhookRefusedError: it is none, or could be read in two ways.
    """
    if not _PRINTABLE.fullmatch(url) or len(url) > URL or "\\" in url:
        raise WebhookRefusedError("The webhook's URL is not of printable ASCII, or too long")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise WebhookRefusedError("The webhook's URL is malformed") from None
    if parts.scheme not in _PORTS:
        raise WebhookRefusedError("A webhook's URL begins with http:// or https://")
    if "@" in parts.netloc:
        raise WebhookRefusedError(
            "A webhook's URL carries no credentials", "Give the receiver's token as `token`."
        )
    if parts.fragment or port == 0 or not _is_host(host):
        raise WebhookRefusedError("The webhook's URL names no host and port that can be used")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def check_target(target: Target, rules: Rules, *, machine: str = "") -> None:
    """Refuse an address that a peer may not name.

    Args:
        target: the address.
        rules: what is allowed.
        machine: where the peer is; to one elsewhere this machine is not its own.

    Raises:
        WebhookRefusedError: the broker does not post there.
    """
    literal = _literal(target.host)
    if literal is not None:
        check_address(target, literal, rules)
    here = _names_here(target)
    if here and target.port == rules.own_port:
        raise WebhookRefusedError("The webhook's URL leads to the broker itself")
    if rules.allows(target) or (here and not machine):
        return
    if here:
        raise WebhookRefusedError("A peer on another machine may not name this one's addresses")
    raise WebhookRefusedError(f"{target.host} is not this machine, and not allowed")


def check_address(target: Target, address: Address, rules: Rules) -> None:
    """Refuse what a target's host resolves to, at the moment of connecting.

    Raises:
        WebhookRefusedError: the address is none to post to, or not what such a host may mean.
    """
    here = _is_in(address, _LOOPBACK)
    if _is_in(address, _NEVER):
        raise WebhookRefusedError(f"Nothing is posted to {address}")
    if here and target.port == rules.own_port:
        raise WebhookRefusedError("The webhook's URL leads to the broker itself")
    if here != _names_here(target):  # the name means another address by now
        where = "this machine" if here else "another machine"
        raise WebhookRefusedError(f"{target.host} leads to {where}")


def outcome(status: int) -> Outcome:
    """Return what an answer's status means (Standard Webhooks 1.0, "Deliverability")."""
    match status:
        case _ if 200 <= status < 300:  # noqa: PLR2004 - HTTP's success
            return Outcome.DELIVERED
        case 410:
            return Outcome.GONE
        case 401 | 403 | 404 | 408 | 409 | 425 | 429:
            # Rights, routes and rates change.
            return Outcome.RETRY
        case _ if 400 <= status < 500:  # noqa: PLR2004 - HTTP's "your fault"
            return Outcome.REFUSED
        case _:
            return Outcome.RETRY


def pause(failures: int, came: Outcome, *, chance: float, asked: float | None = None) -> float:
    """Return the seconds to wait after a failure.

    Exponential, with full jitter, so that many who failed together do not come back together.

    Args:
        failures: how often this message has been posted in vain.
        came: what came of the last post.
        chance: from 0 to 1, drawn for this pause.
        asked: seconds that the receiver asked for, which is the least then.
    """
    longest = LONGEST_REFUSED if came is Outcome.REFUSED else LONGEST_DELAY
    most = min(longest, FIRST_DELAY * 2.0 ** min(failures - 1, 32))
    return max(most * chance, min(asked or 0.0, LONGEST_ASKED))


def _names_here(target: Target) -> bool:
    literal = _literal(target.host)
    return target.host == _LOCALHOST or (literal is not None and _is_in(literal, _LOOPBACK))


def _is_host(host: str) -> bool:
    if _literal(host) is not None:
        return True
    last = host.rpartition(".")[2]
    # `2130706433`, `0x7f.1`: numbers that a resolver takes for an address and a reader does not.
    return bool(_HOST.fullmatch(host)) and not _NUMBER.fullmatch(last)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_in(address: Address, networks: Collection[object]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]  # of both kinds
