"""Join the broker of another machine by the word that `claude-peers invite NAME` printed there.

Without an argument the word is read from stdin, which keeps it out of the shell's history. The
token that counts from then on lies in the state folder, for this user only.

exit codes: 0 joined, 2 that is no such word, 6 the broker is not there, or refuses
"""

import argparse
import sys
import time

from claude_peers import settings
from claude_peers.cli import output
from claude_peers.client import joined
from claude_peers.wire import invitation


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the word."""
    parser.add_argument("word", nargs="?", help="the join string; stdin if it is left out")


def run(options: argparse.Namespace) -> int:
    """Join, remember how, and tell what to set."""
    invited = invitation.read(_word(options))
    from claude_peers.client.joining import join

    chosen = settings.load()
    found = join(invited, time.time)
    joined.keep(chosen.state_folder, invited, token=found.token, name=found.name)
    url = f"https://{found.address}"
    if options.json:
        output.tell(
            {"name": found.name, "url": url, "addresses": list(map(str, invited.addresses))}
        )
        return output.OK
    output.say(f"Joined as {found.name}. Use that broker, here and for your agents, with")
    output.say(f"  export CLAUDE_PEERS_BROKER_URL={url}")
    return output.OK


def _word(options: argparse.Namespace) -> str:
    if options.word not in (None, "-"):
        return str(options.word)
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        output.note("Paste the join string, then Enter:")
    return sys.stdin.readline(invitation.MOST + 2)
