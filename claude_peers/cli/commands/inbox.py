"""Show the mail of a mailbox of your own, once; the mailbox is there as soon as you name it.

Messages count as read when they have been printed. --peek leaves them unread, and --of looks at
another peer's mailbox, from which nothing is taken. --json prints one object a line, and nothing
for an empty mailbox.

exit codes: 0 shown, or nothing to show, 4 no such peer, 5 somebody holds that name, 6 no broker
"""

import argparse
from typing import Any

from claude_peers.cli import incoming, output, roster
from claude_peers.cli.mailbox import Mailbox
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import AmbiguousPeerError, PeerNotFoundError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take whose mail, and whether it stays."""
    incoming.named(parser)
    parser.add_argument("--peek", action="store_true", help="leave the messages unread")
    parser.add_argument("--of", metavar="PEER", help="look at another peer's mailbox")


def run(options: argparse.Namespace) -> int:
    """Print what waits."""
    if options.of is not None:
        return _look(options)
    with Mailbox(incoming.name(options)) as mailbox:
        if options.peek:
            return _print(mailbox.look(), mailbox.name, options)
        shown = 0
        views = mailbox.take()
        while views:
            incoming.show(mailbox, views, via="inbox", as_json=options.json)
            shown += len(views)
            views = mailbox.take()
    return _end(shown, mailbox.name, options)


def _look(options: argparse.Namespace) -> int:
    options.of = roster.meant(options.of)
    with Broker() as broker:
        there = broker.peers(gone=True)
        found = [peer for peer in there if roster.means(options.of, peer)]
        present = [peer for peer in found if peer.get("presence", "present") == "present"]
        found = present or found
        if not found:
            raise PeerNotFoundError(options.of)
        if len(found) > 1:
            ids = tuple(f"{peer['id']} ({roster.called(peer)})" for peer in found)
            raise AmbiguousPeerError(options.of, ids)
        answer = broker.ask("/peek-messages", {"id": found[0]["id"]}, authenticate=True)
    return _print(answer["messages"], options.of, options)


def _print(views: list[dict[str, Any]], name: str, options: argparse.Namespace) -> int:
    for view in views:
        incoming.say(view, as_json=options.json)
    return _end(len(views), name, options)


def _end(count: int, name: str, options: argparse.Namespace) -> int:
    if not count and not options.json:
        output.say(f"No unread messages for {name}.")
        if options.of is None:
            output.note(f"Wait for some: claude-peers listen --name {name}")
    return output.OK
