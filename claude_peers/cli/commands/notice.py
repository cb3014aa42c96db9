"""Tell the agent that runs this of its unread mail; the hooks of Codex and Gemini CLI call it.

It reads the hook's event from stdin and prints the hook's answer: who has written, and to call
check_messages. Nothing is taken from the mailbox. `claude-peers hooks install --client codex` puts
it in place.

exit codes: 0 answered, also when there is nothing to tell, 2 stdin is no event
"""

import argparse
import json
import os
import sys
from typing import Any

from claude_peers.cli import output
from claude_peers.cli.reach import Broker
from claude_peers.core.errors import NoBrokerError
from claude_peers.host import processes
from claude_peers.wire import turn_hooks

LEVELS = 2
"""How far above a hook, or a server, its client is at most: a shell may be between. One more, and
two clients that were started from one terminal could not be told apart.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing: the event is on stdin."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print the answer."""
    del options  # what is printed is JSON in any case
    event = _event()
    try:
        with Broker() as broker:
            senders = _senders(broker) if broker.ours else []
    except NoBrokerError:
        senders = []  # then nobody has any mail that could be read
    output.say(turn_hooks.answer(event, senders))
    return output.OK


def _event() -> dict[str, Any]:
    raw = sys.stdin.buffer.read() if sys.stdin is not None else b""
    try:
        event = json.loads(raw)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise output.UsageError(
            "stdin holds no event of a hook",
            "Let the client call this: claude-peers hooks install --client codex (or gemini).",
        )
    return event


def _senders(broker: Broker) -> list[str]:
    """Return the name or id of the sender of each unread message of our client's peer."""
    peers = broker.peers()
    mine = _served_by(peers, processes.ancestors(os.getpid(), LEVELS))
    if mine is None:
        return []
    names = {peer["id"]: peer.get("name") or peer["id"] for peer in peers}
    mail = broker.ask("/peek-messages", {"id": mine["id"]}, authenticate=True)["messages"]
    return [str(names.get(each["from_id"], each["from_id"])) for each in mail]


def _served_by(peers: list[dict[str, Any]], above: list[int]) -> dict[str, Any] | None:
    """Return the peer whose server has the nearest of these processes above it."""
    here = [peer for peer in peers if peer.get("hostname") == processes.host_name()]
    servers = [(peer, processes.ancestors(peer["pid"], LEVELS)) for peer in here if peer["pid"]]
    for client in above:
        for peer, parents in servers:
            if client in parents:
                return peer
    return None
