"""Send a question to a peer and wait for its answer.

The answer is what the peer sends with this message's id as `reply_to`; other mail stays unread.
An answer that comes later waits: claude-peers inbox.

exit codes: 0 answered, 2 usage, 3 no answer in time, 4 no such peer or several, 6 no broker,
7 mailbox full, rate limit, or the peer ended without an answer
"""

import argparse
import time
from typing import Any

from claude_peers.cli import incoming, output, roster, words
from claude_peers.cli.mailbox import Mailbox
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.limits import PAGE, PATH
from claude_peers.core.models import SYSTEM, Intent
from claude_peers.core.text import one_line

WAITS, LONGEST_WAIT = 60.0, 24 * 3600.0
"""Seconds to wait for an answer, if nothing else is said, and at most."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the peer, the question, and how long to wait."""
    parser.add_argument("peer", help="id, name, name@host or directory of the peer")
    parser.add_argument("message", nargs="*", help="the words of the question, or - for stdin")
    parser.add_argument(
        "--timeout", type=words.seconds(LONGEST_WAIT), default=WAITS, metavar="S",
        help=f"seconds to wait for the answer; default {WAITS:g}",
    )  # fmt: skip
    incoming.named(parser)


def run(options: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    question = words.message(options.message, options.rest, command="ask PEER QUESTION")
    options.peer = roster.meant(options.peer)
    end = time.monotonic() + options.timeout
    # It is away until it asks again; several may ask at once, each under a name of its own.
    with Mailbox(incoming.name(options), route="ask", exact=False) as mailbox:
        sent = mailbox.send(
            {"to_id": options.peer, "text": question, "intent": Intent.REQUEST.value}
        )
        if not options.json:
            for warning in sent["warnings"]:
                output.note(one_line(str(warning), PATH))
        answer = _answer(mailbox, sent, end)
        if answer is None:
            raise output.TimedOutError(
                f"{_name(sent)} has not answered message {sent['message_id']} within "
                f"{options.timeout:g} s",
                f"A later answer waits: claude-peers inbox --name {mailbox.name}",
            )
        if answer["from_id"] == SYSTEM:
            mailbox.seen([answer["id"]], "ask")
            raise NoAnswerError(answer["text"])
        if options.json:
            output.tell({"ok": True, "message_id": sent["message_id"], "answer": answer})
            mailbox.seen([answer["id"]], "ask")
        else:
            incoming.show(mailbox, [answer], via="ask", as_json=False)
    return output.OK


def _answer(mailbox: Mailbox, sent: dict[str, Any], end: float) -> dict[str, Any] | None:
    """Return the answer, or the broker's word that there will be none; None if none came."""
    # What waits already is not handed out: that would count against it.
    others = {view["id"] for view in mailbox.look() if not _ends(view, sent["message_id"])}
    while True:
        wait = max(0.0, end - time.monotonic())
        views = mailbox.take(wait, exclude=others, most=PAGE)
        found = next((view for view in views if _ends(view, sent["message_id"])), None)
        rest = {view["id"] for view in views} - ({found["id"]} if found else set())
        mailbox.give_back(rest, "ask")
        if found or not wait:
            return found
        others |= rest


def _ends(view: dict[str, Any], number: int) -> bool:
    """Whether a message is the answer to message `number`, or a notice about it."""
    if view["from_id"] == SYSTEM and view["verified"]:
        return f"message {number}." in view["text"]
    return bool(view.get("reply_to") == number)


def _name(sent: dict[str, Any]) -> str:
    return one_line(str(sent["to_name"]), PATH)


class NoAnswerError(ClaudePeersError):
    """There will be no answer."""

    code = "unanswered"

    def __init__(self, notice: str) -> None:
        super().__init__(
            one_line(notice, PATH), "Ask again when it is there, or ask somebody else."
        )
