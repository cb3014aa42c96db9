"""Who leads, and who is there."""

import argparse
from typing import Any

from claude_peers.cli import output
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.text import one_line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print the broker's state; exit 6 if there is no broker."""
    try:
        with Broker() as broker:
            status, peers, url = broker.status(), broker.peers(), broker.url
    except NoBrokerError:
        if not options.json:
            output.say("Broker is not running.")
        raise
    if options.json:
        output.tell({**status, "url": url, "peers": peers})
        return output.OK
    output.say("\n".join(_lines(status, peers, url)))
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
    if "epoch" in status:
        standby = f"standby pid {status['standby']}" if status.get("standby") else "no standby"
        lines += ["", f"Leader: pid {status.get('pid')}, epoch {status['epoch']}, {standby}"]
    return lines
