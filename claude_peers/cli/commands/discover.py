"""Listen for brokers on the local network that announce themselves, and list them.

A broker does so every 30 s where CLAUDE_PEERS_DISCOVERY=1 is set and it listens for other machines
(CLAUDE_PEERS_BIND). Anybody in the network can announce anything: what is listed is what was said.
To use a broker, join it: `claude-peers invite NAME` over there, `claude-peers join` here.

exit codes: 0 some were heard, 2 usage, 3 none was
"""

import argparse
from dataclasses import asdict

from claude_peers import settings
from claude_peers.cli import output, words
from claude_peers.host import lan
from claude_peers.wire import announcement
from claude_peers.wire.announcement import Announcement

USUAL = 35.0
"""Seconds: a little more than from one announcement to the next."""
LONGEST = 600
MOST = 64
"""Brokers that are listed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take how long to listen."""
    parser.add_argument(
        "--timeout",
        type=words.seconds(LONGEST),
        default=USUAL,
        metavar="S",
        help=f"how long to listen, in seconds ({USUAL:g} if not given)",
    )


def run(options: argparse.Namespace) -> int:
    """Listen, then print whom was heard."""
    target = settings.load().discovery_target
    if not options.json:
        output.note(f"Listening at {target[0]}:{target[1]} for {options.timeout:g} s.")
    heard = _heard(target, options.timeout)
    if not heard:
        raise output.TimedOutError(
            f"No broker was heard within {options.timeout:g} s",
            "Set CLAUDE_PEERS_DISCOVERY=1 and CLAUDE_PEERS_BIND on the machine of the broker.",
        )
    if options.json:
        output.tell([asdict(each) for each in heard])
        return output.OK
    for each in heard:
        fleet = f"  fleet {each.fleet_id}" if each.fleet_id else ""
        output.say(f"{each.url}  {each.version}{fleet}  heard from {each.source}")
    output.note("None of it is proved. To use one: `claude-peers invite NAME` there, join here.")
    return output.OK


def _heard(target: tuple[str, int], within: float) -> list[Announcement]:
    """Return the different announcements that came, in the order in which they did."""
    heard: dict[Announcement, None] = {}
    for data, source in lan.receive(target, within=within, longest=announcement.LONGEST):
        told = announcement.decode(data, source)
        if told is not None and len(heard) < MOST:
            heard[told] = None
    return list(heard)
