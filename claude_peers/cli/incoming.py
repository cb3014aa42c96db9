"""Mail as a shell receives it: printed, one message after the other, then acknowledged."""

import argparse
from collections.abc import Sequence
from typing import Any

from claude_peers import settings
from claude_peers.cli import output
from claude_peers.cli.mailbox import Mailbox
from claude_peers.core.limits import NAME, TOPIC
from claude_peers.core.text import one_line, visible

SHELL = "shell"
"""The name of who gave none."""


def named(parser: argparse.ArgumentParser) -> None:
    """Take the name of the mailbox."""
    parser.add_argument(
        "--name", metavar="N", help=f"your name among the peers; default CLAUDE_PEERS_NAME, {SHELL}"
    )


def name(options: argparse.Namespace) -> str:
    """Return the name that was asked for."""
    return options.name or settings.load().name or SHELL


def say(view: dict[str, Any], *, as_json: bool) -> None:
    """Print a message: for people with a line about it, else as one line of JSON."""
    if as_json:
        output.tell(view)
        return
    who = view.get("from_name") or view.get("from_id")
    told = (
        f"From {_word(who)} ({_word(view.get('sent_at'))})",
        f"message {view['id']}",
        f"topic {one_line(str(view['topic']), TOPIC)}" if view.get("topic") else "",
        "its last value" if view.get("retained") else "",
        f"reply to {view['reply_to']}" if view.get("reply_to") else "",
        "an answer is expected" if view.get("intent") == "request" else "",
        f"offered {view['redelivered']} time(s) before" if view.get("redelivered") else "",
        "" if view.get("verified") else "sender not verified",
    )
    output.say(output.style(" · ".join(each for each in told if each), "bold"))
    output.say(visible(str(view["text"])))
    output.say()


def show(mailbox: Mailbox, views: Sequence[dict[str, Any]], *, via: str, as_json: bool) -> None:
    """Print what was taken; each message is acknowledged once it is out, the rest goes back."""
    printed: list[int] = []
    try:
        for view in views:
            say(view, as_json=as_json)
            printed.append(view["id"])
    finally:
        mailbox.seen(printed, via)
        mailbox.give_back({view["id"] for view in views}.difference(printed), via)


def _word(value: object) -> str:
    return one_line(str(value), NAME)
