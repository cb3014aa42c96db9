"""Tell what became of a message: each attempt, its route, and what happens next.

exit codes: 0 told, 2 usage, 4 no such message, 6 no broker
"""

import argparse

from claude_peers.cli import letters, output
from claude_peers.cli.reach import Broker
from claude_peers.wire import story


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the message."""
    parser.add_argument("id", type=letters.number, help="the number that `send` and `log` show")


def run(options: argparse.Namespace) -> int:
    """Print the message's story."""
    with Broker() as broker:
        view = broker.ask("/message-status", {"message_id": options.id}, authenticate=True)
    if options.json:
        output.tell(view)
    else:
        output.say(story.told(view))
    return output.OK
