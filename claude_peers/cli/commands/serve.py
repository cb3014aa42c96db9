"""Run a node without an agent: it leads if nobody does, and stands by otherwise.

Nobody needs it where agent sessions run; it keeps a machine's broker up where there are none,
for shells, scripts and HTTP agents. Ends on Ctrl-C or SIGTERM. --json prints one object a line
for each role; what is in the way is told on stderr, and tried again unless only you can change it.

exit codes: 0 ended by a signal, 1 the database cannot be used, 2 usage or a setting
"""

import argparse
import contextlib
import sys

from claude_peers import settings
from claude_peers.cli import output, variables
from claude_peers.core.errors import ClaudePeersError
from claude_peers.host.lean import load_without_openssl


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments but `--verbose`."""
    parser.add_argument("--verbose", action="store_true", help="log details to stderr")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    load_without_openssl("asyncio")

    from claude_peers.node import run

    chosen = settings.load()
    if not options.json:
        variables.note_unknown(chosen.environ)
    run.start_logging(chosen, verbose=options.verbose)

    url = chosen.broker_url or f"http://127.0.0.1:{chosen.port}"

    def ready(role: str) -> None:
        # Whoever reads this may leave; the node stays.
        with contextlib.suppress(OSError):
            if options.json:
                output.tell({"role": role, "port": chosen.broker_port})
            else:
                sys.stderr.write(f"claude-peers: {role} on {url}\n")
                sys.stderr.flush()

    def cannot(error: ClaudePeersError) -> None:
        with contextlib.suppress(OSError):
            output.complain(error, as_json=options.json)
            sys.stderr.flush()

    run.node(chosen, ready, cannot)
    return output.OK
