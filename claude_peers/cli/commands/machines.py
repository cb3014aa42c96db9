"""List the machines that were invited to this machine's broker, and where it listens for them.

exit codes: 0 done, 6 no broker
"""

import argparse
from typing import Any

from claude_peers.cli import output
from claude_peers.cli.reach import Broker


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print one line for each machine."""
    with Broker() as broker:
        answer = broker.ask("/admin/machines", {}, authenticate=True)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say("\n".join([*map(_line, answer["machines"]), *_listening(answer)]))
    return output.OK


def _line(machine: dict[str, Any]) -> str:
    state = machine["state"]
    since = {
        "invited": f"until {machine['expires_at']}",
        "expired": f"since {machine['expires_at']}",
        "joined": f"since {machine['joined_at']}, {machine['peers']} peer(s) there",
        "revoked": f"since {machine['revoked_at']}",
    }[state]
    return f"{output.style(machine['name'], 'bold')}  {state} {since}"


def _listening(answer: dict[str, Any]) -> list[str]:
    lines = [f"Listens for them on {', '.join(answer['listening'])}"] if answer["listening"] else []
    if problem := answer["problem"]:
        lines += [f"{problem['error']}.", problem["remedy"]]
    return lines or ["Listens for no other machine; CLAUDE_PEERS_BIND changes that."]
