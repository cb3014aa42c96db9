"""Send one message to many peers: to a topic's subscribers, or to all of a scope.

Scopes are @machine, @repo, @dir, and @ with a name in which * stands for anything (quote it). One
that reaches more than five peers is only shown; --yes sends. `-` reads the message from stdin;
everything after `--` belongs to the message.

exit codes: 0 stored for all it reaches, 2 usage, 6 no broker, 7 refused, by some mailboxes at
least, or shown only
"""

import argparse
import os
from typing import Any

from claude_peers.cli import mailbox, output, words
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import ClaudePeersError
from claude_peers.core.limits import NAME, PATH, TOPIC
from claude_peers.core.text import one_line
from claude_peers.host import git

SENDER = "cli"  # as upstream: claude-peers-mcp cli.ts
EVERYBODY = 1_000_000_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take for whom, the message, and whether it is kept."""
    parser.add_argument("topic", help="a topic such as build/status, or @machine, @repo, @dir, @N*")
    parser.add_argument("message", nargs="*", help="the words of the message, or - for stdin")
    parser.add_argument(
        "--retain", action="store_true", help="keep it as the topic's last value for newcomers"
    )
    parser.add_argument(
        "--forget", action="store_true", help="end the topic's last value; takes no message"
    )
    parser.add_argument(
        "--name", metavar="N", help="send as the mailbox that `listen --name N` reads"
    )
    parser.add_argument("--yes", action="store_true", help="send, however many peers it reaches")


def run(options: argparse.Namespace) -> int:
    """Send, and print who has it."""
    body = {
        "from_id": SENDER if options.name is None else mailbox.own(options.name),
        "text": _text(options),
        "retain": options.retain or options.forget,
        "confirm": EVERYBODY if options.yes else 0,
        "dedupe_key": os.urandom(12).hex(),
        **_whom(options.topic),
    }
    with Broker() as broker:
        answer = broker.ask("/broadcast", body, authenticate=broker.ours)
    if options.json:
        output.tell(answer)
    if reached := answer.get("preview"):
        if not options.json:
            output.say("\n".join(one_line(str(each["name"]), NAME) for each in reached))
        raise UnconfirmedError(options.topic, len(reached))
    if not options.json:
        _say(options.topic, answer)
    return output.UNDELIVERABLE if answer.get("refused") else output.OK


def _text(options: argparse.Namespace) -> str:
    if not options.forget:
        return words.message(options.message, options.rest, command="broadcast TOPIC MESSAGE")
    if options.message or options.rest:
        raise output.UsageError("--forget takes no message", "Leave one of them out.")
    return ""


def _whom(topic: str) -> dict[str, Any]:
    if not topic.startswith("@"):
        return {"topic": topic}
    here = git.inspect(os.getcwd())
    place = {"git_root": here.root, "repo": here.common_dir} if here else {}
    return {"scope": topic, "cwd": os.getcwd(), **place}


def _say(topic: str, answer: dict[str, Any]) -> None:
    count = len(answer.get("delivered_to", ()))
    output.say(f'Broadcast to "{one_line(topic, TOPIC)}" — {count} recipient(s)')
    for each in answer.get("copies", ()):
        name, state = (one_line(str(each[field]), NAME) for field in ("name", "state"))
        output.say(f"  {name}: message {each['message_id']}, {state}")
    for each in answer.get("refused", ()):
        why = one_line(f"{each['name']}: {each['error']}. {each['remedy']}", PATH)
        output.note(f"Not stored for {why}")


class UnconfirmedError(ClaudePeersError):
    """A scope reaches more peers than its sender may know of."""

    code = "unconfirmed"

    def __init__(self, scope: str, count: int) -> None:
        super().__init__(
            f"{scope} reaches {count} peers, nothing was sent", "Add --yes if all of them need it."
        )
