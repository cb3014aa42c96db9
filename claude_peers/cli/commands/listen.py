"""Be a peer named N: print each message as it comes, until Ctrl-C.

Mail for N waits while nobody listens, and comes first. A message counts as read once it has been
printed. Answer with `claude-peers send --name N PEER --reply-to ID TEXT`. --json prints one object
a line.

exit codes: 0 ended by --count, 3 nothing came within --timeout, 5 somebody holds that name,
6 no broker, 130 Ctrl-C
"""

import argparse
import time
from typing import Any

from claude_peers.cli import incoming, letters, output, words
from claude_peers.cli.mailbox import LONGEST, Mailbox
from claude_peers.core.limits import PAGE

LONGEST_WAIT = 7 * 24 * 3600.0
MOST = 1_000_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the name, and when to end."""
    incoming.named(parser)
    parser.add_argument(
        "--count", type=letters.count(MOST), metavar="C", help="end after C messages"
    )
    parser.add_argument(
        "--timeout",
        type=words.seconds(LONGEST_WAIT),
        metavar="S",
        help="end when none came for S seconds",
    )


def run(options: argparse.Namespace) -> int:
    """Print what comes."""
    with Mailbox(incoming.name(options), route="listen") as mailbox:
        if not options.json:
            output.note(f"Listening as {mailbox.name} ({mailbox.peer_id}); Ctrl-C ends it.")
        left = options.count
        while left is None or left:
            views = _next(mailbox, options.timeout, PAGE if left is None else min(left, PAGE))
            if not views:
                raise output.TimedOutError(
                    f"No message for {mailbox.name} within {options.timeout:g} s",
                    "Mail that comes later waits for the next `listen` or `inbox`.",
                )
            incoming.show(mailbox, views, via="listen", as_json=options.json)
            left = None if left is None else left - len(views)
    return output.OK


def _next(mailbox: Mailbox, timeout: float | None, most: int) -> list[dict[str, Any]]:
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        wait = LONGEST if end is None else max(0.0, end - time.monotonic())
        views = mailbox.take(wait, most=most)
        if views or (end is not None and time.monotonic() >= end):
            return views
