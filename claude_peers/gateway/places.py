"""How many connections there may be, so that nobody takes the places of this user's sessions.

What a process may have open is shared out: at most half of it to requests, half of the rest to
streams, which last as long as both sides want. What remains is for the live connections of this
machine's sessions alone; they may also have what the others leave.
"""

from dataclasses import dataclass
from typing import Final

from claude_peers.core.errors import ClaudePeersError

REQUESTS: Final = 512
"""Connections for requests, at most."""
STREAMS: Final = 4096
"""WebSockets, streams of events and live connections of other machines, at most."""
SPARE: Final = 64
"""Open files that are no such connections: the database, logs, listeners, webhooks."""
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
    """

    requests: int
    streams: int
    together: int


def share(files: int) -> Places:
    """Return the places in a process that may have so many files open."""
    together = max(_LEAST, files - SPARE)
    requests = min(REQUESTS, together // 2)
    streams = min(STREAMS, (together - requests) // 2)
    return Places(requests=requests, streams=streams, together=together)


class CrowdedError(ClaudePeersError):
    """There is no place for one more connection that stays."""

    code = "crowded"
    http_status = 503

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} connections are open, and there is no place for one more that stays",
            "Close some that nobody needs, or let the broker open more files (`ulimit -Hn` where "
            "it is started). A poll that waits (`wait_s`) needs no such place.",
            retry_after=LATER,
        )
