"""Let a mailbox of your own get what is published to topics; `listen` and `inbox` show it.

In a topic `+` stands for one level and `#`, at the end, for all that follow (quote it). It holds
until --remove.

exit codes: 0 done, 2 usage, 4 no such peer, 6 no broker, 7 too many subscriptions
"""

import argparse

from claude_peers.cli import incoming, mailbox, output
from claude_peers.cli.reach import Broker
from claude_peers.core.limits import TOPIC
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take whose, and which topics."""
    parser.add_argument("topics", nargs="+", metavar="TOPIC", help="a topic, or a pattern")
    parser.add_argument("--remove", action="store_true", help="get no more of them")
    incoming.named(parser)


def run(options: argparse.Namespace) -> int:
    """Subscribe, or unsubscribe; print what holds now."""
    name = incoming.name(options)
    me = {"id": mailbox.own(name)}
    operation = "/unsubscribe" if options.remove else "/subscribe"
    with Broker() as broker:
        answers = [
            broker.ask(operation, {**me, "topic": topic}, authenticate=True)
            for topic in options.topics
        ]
    if options.json:
        output.tell({"id": me["id"], **answers[-1]})
        return output.OK
    for topic, answer in zip(options.topics, answers, strict=True):
        word = "Unsubscribed from" if options.remove else "Subscribed to"
        output.say(f'{word} "{one_line(topic, TOPIC)}"')
        if missed := answer.get("missed"):
            output.note(f"{missed} last value(s) had no room in the mailbox: read it first.")
    output.note(f"Read what comes: claude-peers listen --name {name}")
    return output.OK
