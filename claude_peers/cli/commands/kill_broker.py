"""Let another node lead; no process is ended and nothing is lost.

The broker hands over to another session; if there is none, it leads again a second later.
--for keeps everybody from leading for a while, for instance to look at the database in peace.
"""

import argparse
import time
from typing import Any

from claude_peers.cli import output, words
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError, NoBrokerError

WITHIN = 4.0
"""Seconds to wait for the next leader."""
LONGEST = 3600


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take how long nobody should lead."""
    parser.add_argument(
        "--for",
        dest="hold",
        type=words.seconds(LONGEST),
        default=0.0,
        metavar="60s",
        help="keep every node from leading for so long (s, m; at most an hour)",
    )


def run(options: argparse.Namespace) -> int:
    """Ask the leader to step down, then tell who leads."""
    try:
        with Broker() as broker:
            if not broker.ours:
                raise NotOursError(broker.url)
            before = broker.status()
            if not options.json:
                output.say(f"Broker has {before.get('peers')} peer(s). Shutting down...")
            body = {"hold_ms": round(options.hold * 1000)}
            broker.ask("/admin/step-down", body, authenticate=True)
    except NoBrokerError:
        if not options.json:
            output.say("Broker is not running.")
        raise
    after = _next_leader(before) if not options.hold else None
    if options.json:
        output.tell({"stopped": before, "leads_now": after})
        return output.OK
    output.say("Broker stopped.")
    if options.hold:
        output.say(f"Nobody leads for {options.hold:g} s.")
    elif after is None:
        output.say("Nobody leads yet; the next session that starts will.")
    else:
        output.say(f"Leads now: pid {after.get('pid')}, epoch {after.get('epoch')}.")
    return output.OK


def _next_leader(before: dict[str, Any]) -> dict[str, Any] | None:
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        time.sleep(0.02)
        try:
            with Broker() as broker:
                status = broker.status()
        except NoBrokerError:
            continue
        if status.get("epoch", 0) > before.get("epoch", 0):
            return status
    return None


class NotOursError(ClaudePeersError):
    """The broker is one that we cannot ask."""

    code = "not_ours"

    def __init__(self, url: str) -> None:
        super().__init__(
            f"Nothing was stopped: the broker on {url} does not know this user's secret",
            "It is another implementation's, or has another CLAUDE_PEERS_DB; "
            "end it with its own command, or use the same settings.",
        )
