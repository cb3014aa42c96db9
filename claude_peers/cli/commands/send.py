"""Send a message to a peer, by id, name, name@host or directory.

It is stored when the command succeeds, and kept until the peer has read it, also if the peer is
not running now (--require-live refuses that). `-` reads the message from stdin; everything after
`--` belongs to the message.

exit codes: 0 stored, 2 usage, 4 no such peer or several, 6 no broker, 7 mailbox full, rate limit,
or not running with --require-live
"""

import argparse
import os
from typing import Any

from claude_peers.cli import letters, mailbox, output, roster, words
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.limits import PATH
from claude_peers.core.text import one_line

SENDER = "cli"  # as upstream: claude-peers-mcp cli.ts


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the peer and the message."""
    parser.add_argument("peer", help="id, name, name@host or directory of the peer")
    parser.add_argument("message", nargs="*", help="the words of the message, or - for stdin")
    parser.add_argument(
        "--reply-to", type=letters.number, metavar="ID", help="the message this one answers"
    )
    parser.add_argument(
        "--name", metavar="N", help="send as the mailbox that `listen --name N` and `inbox` read"
    )
    parser.add_argument(
        "--require-live", action="store_true", help="send only if the peer is running"
    )


def run(options: argparse.Namespace) -> int:
    """Send, and print what the broker said."""
    text = words.message(options.message, options.rest, command="send PEER MESSAGE")
    options.peer = roster.meant(options.peer)
    body: dict[str, Any] = {
        "from_id": SENDER,
        "to_id": options.peer,
        "text": text,
        "dedupe_key": os.urandom(12).hex(),
    }
    if options.reply_to is not None:
        body["reply_to"] = options.reply_to
    if options.name is not None:
        body["from_id"] = mailbox.own(options.name)
    with Broker() as broker:
        if options.require_live and not any(
            roster.means(options.peer, peer) for peer in broker.peers()
        ):
            raise NotRunningError(options.peer)
        answer = broker.ask("/send-message", body, authenticate=broker.ours)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say(f"Message sent to {answer.get('to_id', options.peer)}")
    for warning in answer.get("warnings", ()):
        output.note(one_line(str(warning), PATH))
    if "message_id" in answer:
        output.note(f"What becomes of it: claude-peers why {answer['message_id']}")
    return output.OK


class NotRunningError(ClaudePeersError):
    """The peer is not running, and the sender wants it to."""

    code = "not_running"

    def __init__(self, target: str) -> None:
        super().__init__(
            f"{target} is not running, nothing was sent",
            "Leave out --require-live to put it into the mailbox.",
        )
