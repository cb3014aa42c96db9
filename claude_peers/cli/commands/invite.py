"""Let another machine use this machine's broker, once; prints a word for `claude-peers join` there.

The word names the broker's addresses and certificate and holds a code that is good for one join.
Whoever has it may join, so hand it over as you would a password. The broker has to listen for
other machines: CLAUDE_PEERS_BIND, wherever claude-peers is started on this one.

exit codes: 0 done, 1 the broker does not listen, 2 usage, 5 a machine has joined under that name,
6 no broker
"""

import argparse

from claude_peers.cli import output, words
from claude_peers.cli.reach import Broker

LONGEST = 7 * 24 * 3600


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the name, how long, and where from."""
    parser.add_argument("name", help="what the machine is called here; its peers are NAME@this")
    parser.add_argument(
        "--ttl",
        type=words.seconds(LONGEST, long=True),
        default=0.0,
        metavar="24h",
        help="how long the invite is good (s, m, h, d; at most 7d)",
    )
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="where that machine reaches this one, if not by the addresses that are bound",
    )


def run(options: argparse.Namespace) -> int:
    """Ask for an invite and print it, alone on stdout."""
    body = {
        "name": options.name,
        "ttl_ms": round(options.ttl * 1000),
        "addresses": options.address,
    }
    with Broker() as broker:
        answer = broker.ask("/admin/invite", body, authenticate=True)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say(answer["invitation"])
    output.note(f"Good once, until {answer['expires_at']}. On the other machine:")
    output.note("  claude-peers join   (and paste it)")
    return output.OK
