"""Send a message to a peer, by id, name, name@host or directory.

It is stored when the command succeeds, and kept until the peer has read it, also if the peer is
not running now (--require-live refuses that). `-` reads the message from stdin; everything after
`--` belongs to the message.

exit codes: 0 stored, 2 usage, 4 no such peer or several, 6 no broker, 7 mailbox full, rate limit,
or not running with --require-live
"""

import argparse
import os
import sys
from typing import Any

from claude_peers.cli import output
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.limits import TEXT

SENDER = "cli"  # as upstream: claude-peers-mcp cli.ts


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the peer and the message."""
    parser.add_argument("peer", help="id, name, name@host or directory of the peer")
    parser.add_argument("message", nargs="*", help="the words of the message, or - for stdin")
    parser.add_argument("--reply-to", type=int, metavar="ID", help="the message this one answers")
    parser.add_argument(
        "--require-live", action="store_true", help="send only if the peer is running"
    )


def run(options: argparse.Namespace) -> int:
    """Send, and print what the broker said."""
    text = _text(options.message, options.rest)
    body: dict[str, Any] = {
        "from_id": SENDER,
        "to_id": options.peer,
        "text": text,
        "dedupe_key": os.urandom(12).hex(),
    }
    if options.reply_to is not None:
        body["reply_to"] = options.reply_to
    with Broker() as broker:
        if options.require_live and not _is_live(broker, options.peer):
            raise NotRunningError(options.peer)
        answer = broker.ask("/send-message", body, authenticate=broker.ours)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say(f"Message sent to {answer.get('to_id', options.peer)}")
    if answer.get("presence", "present") != "present":
        print("That peer is not running; the message waits in its mailbox.", file=sys.stderr)
    return output.OK


def _text(words: list[str], rest: list[str]) -> str:
    if words == ["-"] and not rest:
        # One byte more than allowed: the broker then says that it is too long.
        raw = sys.stdin.buffer.read(TEXT + 1) if sys.stdin is not None else b""
        text = raw.decode("utf-8", "replace")
    else:
        text = " ".join((*words, *rest))
    if not text:
        raise output.UsageError(
            "The message is empty", "Usage: claude-peers send PEER MESSAGE, or `-` for stdin."
        )
    return text


def _is_live(broker: Broker, target: str) -> bool:
    """Whether one of the peers that run now is meant; `core.discovery` has the rules."""
    name, _, host = target.partition("@")
    return any(
        target in (peer["id"], peer["cwd"])
        or (name == peer.get("name") and host in ("", peer.get("hostname")))
        for peer in broker.peers()
    )


class NotRunningError(ClaudePeersError):
    """The peer is not running, and the sender wants it to."""

    code = "not_running"

    def __init__(self, target: str) -> None:
        super().__init__(
            f"{target} is not running, nothing was sent",
            "Leave out --require-live to put it into the mailbox.",
        )
