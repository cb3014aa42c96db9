"""Give a peer another name; mail to the old one still reaches it for a day.

A name has up to 64 of a-z, 0-9, dot, dash and underscore, a letter or digit first.

exit codes: 0 done, 2 usage or no name, 4 no such peer or several, 5 somebody has the name,
6 no broker
"""

import argparse

from claude_peers.cli import output, roster
from claude_peers.cli.reach import Broker
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the peer and its new name."""
    parser.add_argument("peer", help="id, name, name@host or directory of the peer")
    parser.add_argument("name", help="its new name")


def run(options: argparse.Namespace) -> int:
    """Rename, and say what the old name is worth."""
    body = {"id": roster.meant(options.peer), "name": options.name}
    with Broker() as broker:
        answer = broker.ask("/rename", body, authenticate=True)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say(
        f"{one_line(options.peer, NAME)} is called {answer['name']} now. "
        "The old name is answered for a day."
    )
    return output.OK
