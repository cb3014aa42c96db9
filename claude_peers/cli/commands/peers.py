"""List the peers of this machine."""

import argparse
from typing import Any

from claude_peers.cli import output, roster
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments but `--names`."""
    parser.add_argument("--names", action="store_true", help="print only names, one a line")


def run(options: argparse.Namespace) -> int:
    """Print one peer after the other; exit 6 if there is no broker."""
    try:
        with Broker() as broker:
            peers = broker.peers()
    except NoBrokerError:
        if not options.json:
            output.say("Broker is not running.")
        raise
    if options.json:
        output.tell(peers)
    elif options.names:
        for peer in peers:
            output.say(one_line(str(peer.get("name", peer["id"])), 64))
    elif peers:
        output.say("\n".join(line for peer in peers for line in _lines(peer)))
    else:
        output.say("No peers registered.")
        output.note("Start an agent session with claude-peers; it shows up here.")
    return output.OK


def _lines(peer: dict[str, Any]) -> list[str]:
    lines = [f"{peer['id']}  PID:{peer['pid']}  {one_line(str(peer['cwd']), 1024)}"]
    for label, name in (("Name", "name"), ("Summary", "summary")):
        if peer.get(name):
            lines.append(f"  {label}: {one_line(str(peer[name]), 500)}")
    if route := roster.route(peer):
        lines.append(f"  Route: {route}")
    return lines
