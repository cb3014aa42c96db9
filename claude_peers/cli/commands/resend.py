"""Send dead letters again, each as a new message of the same sender.

`claude-peers dead-letters` lists them. Of several, each is tried; whoever asks twice within ten
minutes gets the same new message.

exit codes: 0 all were stored, else that of the first that was not: 2 it is not dead, or usage,
4 no such message or recipient, 6 no broker, 7 mailbox full or not to be delivered
"""

import argparse
from typing import Any

from claude_peers.cli import letters, output
from claude_peers.cli.reach import Broker
from claude_peers.client.errors import RefusedError
from claude_peers.core.limits import NAME, PATH
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the messages."""
    parser.add_argument(
        "ids", nargs="+", type=letters.number, metavar="ID", help="id of a dead letter"
    )


def run(options: argparse.Namespace) -> int:
    """Send each again, and print what the broker said."""
    answers: list[dict[str, Any]] = []
    code = output.OK
    with Broker() as broker:
        for number in dict.fromkeys(options.ids):
            body = {"message_id": number}
            try:
                answer = broker.ask("/resend-message", body, authenticate=True)
            except RefusedError as error:
                failed = output.complain(error, as_json=options.json)
                code = code or failed
                continue
            answers.append({"resent": number, **answer})
            if not options.json:
                _show(answers[-1])
    if options.json and answers:
        output.tell(answers)
    return code


def _show(answer: dict[str, Any]) -> None:
    name = one_line(str(answer.get("to_name") or answer["to_id"]), NAME)
    done = "had been sent again before," if answer.get("duplicate") else "sent again"
    output.say(
        f"Message {answer['resent']} {done} as {answer['message_id']} to {name}, "
        f"state {answer['state']}"
    )
    for warning in answer["warnings"]:
        output.note(one_line(warning, PATH))
    output.note(f"What becomes of it: claude-peers why {answer['message_id']}")
