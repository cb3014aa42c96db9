"""Show the messages of all mailboxes, oldest first, a line each.

The line has the time here, the id, who wrote to whom, the state when the line was printed (it may
have changed since; `claude-peers why ID` tells), what the sender expects, and how the text begins.
With -f it goes on until Ctrl-C, also when another broker takes over. --json prints the whole
message as one JSON object a line.

exit codes: 0 done, 2 usage, 6 no broker, 130 interrupted
"""

import argparse
import time
from collections.abc import Callable, Iterator

from claude_peers.cli import letters, output, roster
from claude_peers.cli.letters import View
from claude_peers.cli.reach import Broker
from claude_peers.client.errors import NOT_LEADER, RefusedError
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line

MOST = 10_000
PAUSE = 0.5
"""Seconds between two looks for more."""
SILENT = 10
"""Looks in vain for a broker after which that is told."""
_STYLES = {"dead": "red", "held": "yellow", "seen": "green", "answered": "green"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take how many, whose, and whether to go on."""
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "-n",
        dest="count",
        type=letters.count(MOST),
        default=20,
        metavar="N",
        help="begin with the last N; default: 20",
    )
    parser.add_argument("--peer", default="", help="only from or to this peer, by id or name")


def run(options: argparse.Namespace) -> int:
    """Print the last messages, then perhaps those that come."""
    wanted = _about(roster.meant(options.peer))
    show = output.tell if options.json else lambda view: output.say(_line(view))
    with Broker() as broker:
        end = [view["id"] for view in letters.page(broker, newest=True, limit=1)]
        found = letters.newest(broker, options.count, wanted, before=end[0] + 1 if end else 0)
    for view in found:
        show(view)
    if options.follow:
        for view in filter(wanted, _more(end[0] if end else 0)):
            show(view)
    elif not found and not options.json:
        _nothing(options.peer)
    return output.OK


def _about(peer: str) -> Callable[[View], bool]:
    fields = ("from_id", "from_name", "to_id", "to_name")
    return lambda view: not peer or any(view.get(field) == peer for field in fields)


def _more(after: int) -> Iterator[View]:
    """Yield what is accepted from now on, of whichever broker leads, without an end."""
    missed = 0
    while True:
        try:
            with Broker() as broker:
                while True:
                    for found in letters.pages(broker, after=after):
                        after = found[-1]["id"]
                        yield from found
                    missed = 0
                    time.sleep(PAUSE)
        except NoBrokerError as error:
            missed += 1
            if missed == SILENT:
                output.note(f"{error.fact}; waiting for the next broker.")
        except RefusedError as error:
            if error.code != NOT_LEADER:
                raise
        time.sleep(PAUSE)


def _line(view: View) -> str:
    state = one_line(str(view["state"]), NAME)
    answers = f"re {view['reply_to']}" if view.get("reply_to") else ""
    said = ", ".join(filter(None, (one_line(str(view.get("intent") or ""), NAME), answers)))
    parts = [
        output.style(letters.moment(view["sent_at"]), "dim"),
        f"{view['id']:>5}",
        letters.ends(view),
        output.style(state, _STYLES.get(state, "cyan")),
        f"[{said}]" if said else "",
        letters.first_line(view),
    ]
    return "  ".join(part for part in parts if part)


def _nothing(peer: str) -> None:
    if peer:
        output.say(f"No messages from or to {one_line(peer, NAME)}.")
        output.note("claude-peers peers shows who is there.")
    else:
        output.say("No messages yet.")
        output.note("Write the first: claude-peers send PEER MESSAGE")
