"""Let a muted sender's messages through to a peer again, also those that were held so far.

Without --for it is the only other peer in this directory, or else on this machine.

exit codes: 0 done, 2 usage, or --for is needed, 4 no such peer or several, 6 no broker
"""

import argparse

from claude_peers.cli.commands import mute

arguments = mute.arguments


def run(options: argparse.Namespace) -> int:
    """Let through."""
    return mute.run(options, muted=False)
