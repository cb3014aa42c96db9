"""How many connections there may be, so that nobody takes the places of this user's sessions.

What a process may have open is shared out: at most half of it to requests, half of the rest to
streams, which last as long as both sides want. What remains is for the live connections of this
machine's sessions alone; they may also have what the others leave. Nor may one of the others have
all the streams: a token so many, another machine half of them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

from claude_peers.core.errors import ClaudePeersError

REQUESTS: Final = 512
"""Connections for requests, at most."""
STREAMS: Final = 4096
"""WebSockets, streams of events and live connections of other machines, at most."""
SPARE: Final = 64
"""Open files that are no such connections: the database, logs, listeners, webhooks."""
STRANGERS: Final = 32
"""How many requests' connections, and how many streams, may be strangers': of other users, of
unknown machines, or of nobody knows whom. They have to be told why not."""
EACH: Final = 8
"""Streams of one token, or one peer."""
_LEAST: Final = 64
LATER: Final = 5.0
"""Seconds after which to try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How many connections there may be at a time.

    Attributes:
        requests: for requests.
        streams: that are none any more, but for those of this machine's sessions.
        together: of all kinds.
        strangers: of strangers among the requests, and among the streams.
    """

    requests: int
    streams: int
    together: int
    strangers: int = STRANGERS


def share(files: int) -> Places:
    """Return the places in a process that may have so many files open."""
    together = max(_LEAST, files - SPARE)
    requests = min(REQUESTS, together // 2)
    streams = min(STREAMS, (together - requests) // 2)
    return Places(requests=requests, streams=streams, together=together)


class Holder(Protocol):
    """Who has a stream.

    Attributes:
        machine: the machine it comes from, "" for this one.
        stranger: whether it is another user's, or an unknown machine's.
        holder: the token or the peer that it counts for; "" before it has named one, None if it
            only counts for its machine, or as a stranger.
    """

    machine: str
    holder: str | None

    @property
    def stranger(self) -> bool:
        """See above."""
        ...


class CrowdedError(ClaudePeersError):
    """There is no place for one more connection, of this kind or at all."""

    code = "crowded"
    http_status = 503


def check(new: Holder, others: Collection[Holder], places: Places) -> None:
    """Let there be one more stream, beside those that are not this machine's sessions.

    Raises:
        CrowdedError: there are as many as there may be, together or of its kind.
    """
    half = places.streams // 2
    kinds = [("connections that stay", len(others), places.streams)]
    if new.stranger:
        alike = sum(each.stranger for each in others)
        kinds.append(("streams of other users", alike, places.strangers))
    if new.machine:
        alike = sum(each.machine == new.machine for each in others)
        kinds.append((f"streams of the machine {new.machine}", alike, half))
    if new.holder is not None:
        alike = sum(each.holder == new.holder for each in others)
        named = ("streams of this token or peer", alike, EACH)
        kinds.append(named if new.holder else ("WebSockets without a CONNECT", alike, half))
    for kind, count, most in kinds:
        if count >= most:
            raise no_place(f"{count} {kind}")


def no_place(open_: str) -> CrowdedError:
    """Return the refusal of a connection that stays, where so many are open."""
    return CrowdedError(
        f"{open_} are open, and there is no place for one more that stays",
        "Close some that nobody needs, or let the broker open more files (`ulimit -Hn` where it is "
        "started; one token has 8 streams at most). A poll that waits (`wait_s`) needs no such "
        "place, only a request's.",
        retry_after=LATER,
    )


def too_many_posts(count: int) -> CrowdedError:
    """Return the refusal of a signed post, where so many strangers' requests are being read."""
    return CrowdedError(
        f"{count} connections are of strangers, this post's among them until its signature is "
        "judged",
        "Post it again later; see who uses the tunnel that brings such posts.",
        retry_after=LATER,
    )
