"""Make a token for an MCP client that speaks HTTP, and print the client's configuration with it.

The client is a peer of that name, in the directory where the command is run. Its mailbox keeps
what comes while the client is away. Run the command again to replace the token: the old one is
void at once, name and mailbox stay. A token that nobody has used for a week is forgotten.

Whoever has the token can act as this peer, so keep it as you would a password.

exit codes: 0 done, 2 usage, 6 no broker, or not one of this machine's claude-peers
"""

import argparse
import os

from claude_peers.cli import output
from claude_peers.cli.reach import Broker
from claude_peers.core import identity
from claude_peers.core.errors import NoBrokerError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the name."""
    parser.add_argument("name", help="what the peer is called")


def run(options: argparse.Namespace) -> int:
    """Print the configuration, alone on stdout."""
    name = identity.as_name(options.name)
    with Broker() as broker:
        _check(broker)
        body = {
            "name": name,
            "cwd": os.getcwd(),
            "client": "mcp over http",
            "keys": [identity.key("token", name)],
        }
        joined = broker.ask("/register", body, authenticate=True)
    output.tell(
        {
            "type": "http",
            "url": f"{broker.url}/mcp",
            "headers": {"Authorization": f"Bearer {joined['token']}"},
        }
    )
    if joined["name"] != name:
        output.note(f"{name} is another peer's name: this one is called {joined['name']}.")
    output.note("This is an entry of `mcpServers` in most clients' configuration.")
    output.note("The same command makes a new token, and the old one void.")
    return output.OK


def _check(broker: Broker) -> None:
    if broker.settings.remote is not None:
        raise NoBrokerError(
            f"The broker is on {broker.settings.remote}, and asks this machine for its signature",
            "MCP over HTTP works on the broker's own machine; here give the agent claude-peers "
            "as a stdio server.",
        )
    if not broker.ours:
        raise NoBrokerError(
            f"The broker on {broker.url} is another implementation's: it has no /mcp",
            "End it where it was started; then the next session of claude-peers leads.",
        )
