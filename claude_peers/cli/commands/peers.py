"""List the peers of this machine."""

import argparse
from typing import Any

from claude_peers.cli import output, roster
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import NoBrokerError
from claude_peers.core.limits import NAME, SUMMARY
from claude_peers.core.models import Presence
from claude_peers.core.text import one_line

PRESENT, DEPARTED = Presence.PRESENT.value, Presence.DEPARTED.value
_NARROWED_BY = (
    ("Type", "agent_type"),
    ("Capabilities", "capabilities"),
    ("Fleet", "fleet_id"),
    ("Device", "device_id"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take whom to list, and how."""
    parser.add_argument("--names", action="store_true", help="print only names, one a line")
    parser.add_argument(
        "--all", action="store_true", help="also those that are away: their mail waits for them"
    )
    parser.add_argument("--fleet", default="", metavar="F", help="only those of a fleet")
    parser.add_argument("--device", default="", metavar="D", help="only those on a device")
    parser.add_argument("--type", default="", metavar="T", help="only agents of a type, as codex")
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="C",
        help="only those that say they can do this; several: all of them",
    )
    parser.add_argument("--online", action="store_true", help="only those that are told at once")


def run(options: argparse.Namespace) -> int:
    """Print one peer after the other; exit 6 if there is no broker."""
    try:
        with Broker() as broker:
            found = broker.ask(
                "/list-peers", {"scope": "machine", "gone": True, **_wanted(options)}
            )
            known = [peer for peer in found if _presence(peer) != DEPARTED]
    except NoBrokerError:
        if not options.json:
            output.say("Broker is not running.")
        raise
    peers = [peer for peer in known if options.all or _presence(peer) == PRESENT]
    if options.json:
        output.tell(peers)
    elif options.names:
        for peer in peers:
            output.say(one_line(str(peer.get("name", peer["id"])), 64))
    elif peers:
        output.say("\n".join(line for peer in peers for line in _lines(peer)))
    else:
        output.say("No peers registered.")
        output.note("Start an agent session with claude-peers; it shows up here.")
    if (away := len(known) - len(peers)) and not (options.json or options.names):
        verb = "is" if away == 1 else "are"
        output.note(f"{away} more {verb} away: claude-peers peers --all")
    return output.OK


def _wanted(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the list is narrowed to, as the broker knows it."""
    wanted = {
        "fleet_id": options.fleet,
        "device_id": options.device,
        "agent_type": options.type,
        "capabilities": options.capability,
        "online_only": options.online,
    }
    return {name: value for name, value in wanted.items() if value}


def _presence(peer: dict[str, Any]) -> str:
    return str(peer.get("presence", PRESENT))


def _lines(peer: dict[str, Any]) -> list[str]:
    lines = [f"{peer['id']}  PID:{peer['pid']}  {one_line(str(peer['cwd']), 1024)}"]
    for label, name in (("Name", "name"), ("Summary", "summary")):
        if peer.get(name):
            lines.append(f"  {label}: {one_line(str(peer[name]), SUMMARY)}")
    if route := roster.route(peer):
        lines.append(f"  Route: {route}")
    for label, name in _NARROWED_BY:
        told = peer.get(name) or ""
        if text := ", ".join(map(str, told)) if isinstance(told, list) else str(told):
            lines.append(f"  {label}: {one_line(text, SUMMARY)}")
    if (presence := _presence(peer)) != PRESENT:
        lines.append(f"  Presence: {one_line(presence, NAME)}")
    return lines
