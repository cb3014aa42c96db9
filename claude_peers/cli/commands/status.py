"""Who leads, who is there, and whether every message is accounted for.

The ledger counts messages by state; what was accepted is always what is there and what was
forgotten in its time. What was refused is counted since this broker leads.
"""

import argparse
import os
from typing import Any

from claude_peers.cli import output, roster, variables
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print the broker's state; exit 6 if there is no broker."""
    if not options.json:
        variables.note_unknown(os.environ)
    try:
        with Broker() as broker:
            status, peers, url = broker.status(), broker.peers(), broker.url
            # Another implementation's keeps none.
            ledger = broker.ask("/ledger", {}) if broker.ours else None
    except NoBrokerError:
        if not options.json:
            output.say("Broker is not running.")
        raise
    if options.json:
        output.tell({**status, "url": url, "peers": peers, "ledger": ledger})
        return output.OK
    output.say("\n".join([*_lines(status, peers, url), *_account(ledger or {})]))
    return output.OK


def _lines(status: dict[str, Any], peers: list[dict[str, Any]], url: str) -> list[str]:
    lines = [
        f"Broker: {status.get('status')} ({status.get('peers')} peer(s) registered)",
        f"URL: {url}",
        *(["", "Peers:"] if peers else []),
    ]
    for peer in peers:
        lines.append(f"  {peer['id']}  PID:{peer['pid']}  {one_line(str(peer['cwd']), 1024)}")
        for label, name in (("", "summary"), ("TTY: ", "tty"), ("Last seen: ", "last_seen")):
            if peer.get(name):
                lines.append(f"         {label}{one_line(str(peer[name]), 500)}")
        for label, told in (("Name", peer.get("name")), ("Route", roster.route(peer))):
            if told:
                lines.append(f"         {label}: {one_line(str(told), 500)}")
    return lines + _lead(status)


def _lead(status: dict[str, Any]) -> list[str]:
    """Return who leads, and where other machines reach it."""
    if "epoch" not in status:
        return []
    if "pid" not in status:
        return ["", f"Leader: on another machine, epoch {status['epoch']}"]
    standby = f"standby pid {status['standby']}" if status.get("standby") else "no standby"
    lines = ["", f"Leader: pid {status['pid']}, epoch {status['epoch']}, {standby}"]
    if places := status.get("listening"):
        lines.append(f"Listens for other machines on {', '.join(places)}")
    if problem := status.get("listening_problem"):
        lines.append(output.style(str(problem), "red"))
    return lines


def _account(ledger: dict[str, Any]) -> list[str]:
    """Return what became of all messages, and what was refused."""
    if "accepted" not in ledger:
        return []
    parts = [*ledger["states"].items(), ("purged", ledger["purged"])]
    counted = ", ".join(f"{count} {one_line(name, NAME)}" for name, count in parts if count)
    told = f"{ledger['accepted']} accepted" + (f" = {counted}" if counted else "")
    if ledger["balanced"]:
        lines = [f"Ledger: {told}, balanced"]
    else:
        lines = [
            f"Ledger: {told}, {output.style('NOT BALANCED', 'bold', 'red')}",
            "Messages are missing. Please report it; `claude-peers export` keeps what there is.",
        ]
    refused = (f"{count} {one_line(code, NAME)}" for code, count in ledger["refused"].items())
    told = ", ".join(refused)
    return [*lines, f"Refused: {told}"] if told else lines
