"""Have a peer's mail posted to an address: `webhook set PEER URL`, `webhook list|remove PEER`.

Each message is posted once it is there, in order, and again until the receiver answers with
success. Receivers check the signature of Standard Webhooks with the secret that `set` prints; see
docs/webhooks.md. Addresses on this machine may be used as they are, others once they are named in
CLAUDE_PEERS_WEBHOOK_ALLOW.

An address with a secret in it does not belong on a command line, which every user of this machine
can read: give `-`, and it is the first line of stdin. With --token-stdin the token is the next one.

exit codes: 0 done, 1 refused, 2 usage, 6 no broker
"""

import argparse
import sys
from typing import Any

from claude_peers.cli import output
from claude_peers.cli.reach import Broker

FORMATS = ("agentmesh", "standard", "openclaw")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, the peer and the address."""
    parser.add_argument("action", choices=("set", "list", "remove"))
    parser.add_argument("peer", nargs="?", default="", help="id or name of the peer")
    parser.add_argument(
        "url", nargs="?", default="", help="where to post to; - reads it from stdin"
    )
    parser.add_argument("--format", choices=FORMATS, default="agentmesh", help="of the body")
    parser.add_argument(
        "--token-stdin", action="store_true", help="read the receiver's bearer token from stdin"
    )


def run(options: argparse.Namespace) -> int:
    """Do it."""
    wanted = {"set": 2, "list": 0, "remove": 1}[options.action]
    if bool(options.peer) + bool(options.url) != wanted:
        raise output.UsageError(
            f"`webhook {options.action}` takes {wanted} more argument(s)",
            "Use webhook set PEER URL, webhook remove PEER or webhook list.",
        )
    with Broker() as broker:
        return {"set": _set, "list": _list, "remove": _remove}[options.action](broker, options)


def _set(broker: Broker, options: argparse.Namespace) -> int:
    url = _line_of("address") if options.url == "-" else options.url
    token = _line_of("token") if options.token_stdin else ""
    body = {"id": options.peer, "url": url, "format": options.format, "token": token}
    answer = broker.ask("/webhook/set", body, authenticate=True)
    if options.json:
        output.tell(answer)
        return output.OK
    output.say(answer["webhook_secret"])
    output.note(f"The mail of {answer['name']} is posted from now on; its signature's secret:")
    return output.OK


def _line_of(what: str) -> str:
    """Return the next line of stdin: what every user could read does not go there."""
    line = sys.stdin.readline().strip()
    if not line:
        raise output.UsageError(
            f"There is no {what} on stdin",
            "Give each as a line of its own: first the address if it is -, then the token.",
        )
    return line


def _list(broker: Broker, options: argparse.Namespace) -> int:
    answer = broker.ask("/admin/webhooks", {}, authenticate=True)
    if options.json:
        output.tell(answer)
    elif answer["webhooks"]:
        output.say("\n".join(map(_line, answer["webhooks"])))
    else:
        output.note("No peer has a webhook.")
    return output.OK


def _remove(broker: Broker, options: argparse.Namespace) -> int:
    answer = broker.ask("/webhook/remove", {"id": options.peer}, authenticate=True)
    if options.json:
        output.tell(answer)
    else:
        output.say(f"The mail of {answer['name']} waits in its mailbox.")
    return output.OK


def _line(webhook: dict[str, Any]) -> str:
    name = output.style(webhook["name"] or webhook["id"], "bold")
    state = webhook["problem"] or webhook["route"]
    return f"{name}  {webhook['url']}  {webhook['format']}  {state}"
