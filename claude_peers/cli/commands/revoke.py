"""Let a machine use this machine's broker no more; its connections end at once.

Its token, or its unused invite, is refused from now on. Its peers are shown as gone; mail from
them and for them is kept as ever.

exit codes: 0 done, 4 no such machine, 6 no broker
"""

import argparse

from claude_peers.cli import output
from claude_peers.cli.reach import Broker


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the machine's name."""
    parser.add_argument("name", help="as `claude-peers machines` shows it")


def run(options: argparse.Namespace) -> int:
    """Revoke, and tell who is gone."""
    with Broker() as broker:
        answer = broker.ask("/admin/revoke", {"name": options.name}, authenticate=True)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say(f"{answer['name']} is revoked; {answer['peers']} of its peers are gone.")
    return output.OK
