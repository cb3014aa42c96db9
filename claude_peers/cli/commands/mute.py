"""Hold a sender's messages back from a peer; `claude-peers unmute` lets them through.

They are kept, not lost, and die like others if nobody reads them in time. Without --for it is the
only other peer in this directory, or else on this machine.

exit codes: 0 done, 2 usage, or --for is needed, 4 no such peer or several, 6 no broker
"""

import argparse
import os
from typing import Any

from claude_peers.cli import output, roster
from claude_peers.cli.reach import Broker
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take whose messages, and for whom."""
    parser.add_argument("sender", help="id, name, name@host or directory of the sender")
    parser.add_argument(
        "--for", dest="peer", metavar="PEER", help="who is to be offered them no more, or again"
    )


def run(options: argparse.Namespace, *, muted: bool = True) -> int:
    """Hold back, or let through."""
    options.sender = roster.meant(options.sender)
    with Broker() as broker:
        peer = (
            {"id": roster.meant(options.peer)}
            if options.peer
            else _only(options.sender, broker.peers())
        )
        body = {"id": peer["id"], "peer_id": options.sender, "muted": muted}
        answer = broker.ask("/mute", body, authenticate=True)
    if options.json:
        output.tell({**answer, "for": peer["id"]})
        return output.OK
    sender, name = one_line(str(answer["name"]), NAME), roster.called(peer)
    if muted:
        output.say(f"{name} is offered no more messages of {sender}; they are kept.")
        output.say(f"Let them through again: claude-peers unmute {sender} --for {name}")
    else:
        output.say(f"{name} is offered the messages of {sender} again, also those held so far.")
    return output.OK


def _only(sender: str, peers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one peer that can be meant where none is named.

    Raises:
        UsageError: there are several, or none.
    """
    others = [peer for peer in peers if not roster.means(sender, peer)]
    found = [peer for peer in others if peer["cwd"] == os.getcwd()] or others
    if len(found) == 1:
        return found[0]
    raise output.UsageError(
        f"{len(found)} peers could be meant" if found else "No other peer is running",
        f"Name one: --for {' or --for '.join(map(roster.called, found))}"
        if found
        else "Name one with --for; `claude-peers peers` lists who is there.",
    )
