"""Run a node without an agent: it leads if nobody does, and stands by otherwise.

Nobody needs it where agent sessions run; it keeps a machine's broker up where there are none,
for shells, scripts and HTTP agents. Ends on Ctrl-C or SIGTERM.
"""

import argparse
import contextlib
import sys

from claude_peers import settings
from claude_peers.cli import output
from claude_peers.host.lean import load_without_openssl


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments but `--verbose`."""
    parser.add_argument("--verbose", action="store_true", help="log details to stderr")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    load_without_openssl("asyncio")

    from claude_peers.node import run

    chosen = settings.load()
    run.start_logging(chosen, verbose=options.verbose)

    def ready(role: str) -> None:
        # Whoever reads this may leave; the node stays.
        with contextlib.suppress(OSError):
            if options.json:
                output.tell({"role": role, "port": chosen.broker_port})
            else:
                sys.stderr.write(f"claude-peers: {role} on http://127.0.0.1:{chosen.broker_port}\n")
                sys.stderr.flush()

    run.node(chosen, ready)
    return output.OK
