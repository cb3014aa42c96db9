"""List messages that nobody read in time, newest first: of all mailboxes, or of one peer's.

They are kept for a week. `claude-peers resend ID` sends one again, as a new message.

exit codes: 0 also if there is none, 2 usage, 4 no such peer or several, 6 no broker
"""

import argparse

from claude_peers.cli import letters, output, roster
from claude_peers.cli.letters import View
from claude_peers.cli.reach import Broker
from claude_peers.core.limits import PATH
from claude_peers.core.text import one_line

MOST = 200
"""As many as the broker tells at once."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take whose, and how many."""
    parser.add_argument("peer", nargs="?", default="", help="id or name of the peer; default: all")
    parser.add_argument(
        "--limit",
        type=letters.count(MOST),
        default=50,
        metavar="N",
        help=f"at most so many; default: 50, at most {MOST}",
    )


def run(options: argparse.Namespace) -> int:
    """Print one dead letter after the other."""
    body = {"id": roster.meant(options.peer), "limit": options.limit}
    with Broker() as broker:
        found = broker.ask("/dead-letters", body, authenticate=True)["dead_letters"]
    if options.json:
        output.tell(found)
    elif found:
        output.say("\n".join(line for view in found for line in _lines(view)))
        output.note(f"Send one again: claude-peers resend {found[0]['id']}")
    else:
        output.say("No dead letters: nothing went unread for too long.")
        output.note("claude-peers log shows what is on its way.")
    return output.OK


def _lines(view: View) -> list[str]:
    reason = one_line(str(view.get("reason") or "for an unknown reason"), PATH)
    head = f"{view['id']}  {letters.moment(view['failed_at'])}  {letters.ends(view)}  {reason}"
    return [head, f"  {letters.first_line(view)}"]
