"""Let a program publish to a topic by `POST /hook/TOPIC`, with a token that allows nothing else.

Prints the token and a command that uses it. The same name again makes a new token, and the old one
void. A pattern (`build/#`) allows all the topics that it matches.

With --signed a sender that cannot show a token, such as GitHub, may sign with it instead
(X-Hub-Signature-256); see docs/webhooks.md.

exit codes: 0 done, 1 refused, 2 usage, 6 no broker
"""

import argparse
import shlex
from urllib.parse import quote

from claude_peers.cli import output
from claude_peers.cli.reach import Broker
from claude_peers.core import identity, topics


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the topic, or what else to do."""
    parser.add_argument("topic", nargs="?", default="", help="what may be published to")
    parser.add_argument("--name", default="", help="as whom it publishes; default: by the topic")
    parser.add_argument(
        "--signed", action="store_true", help="let posts be signed with it too, as GitHub's are"
    )
    parser.add_argument("--list", action="store_true", help="list the tokens' names")
    parser.add_argument("--revoke", metavar="NAME", default="", help="let a token count no more")


def run(options: argparse.Namespace) -> int:
    """Do it."""
    if bool(options.topic) + options.list + bool(options.revoke) != 1:
        raise output.UsageError(
            "One of TOPIC, --list and --revoke NAME is needed",
            "For instance: claude-peers hook-token build/done",
        )
    with Broker() as broker:
        if options.list:
            return _list(broker, options)
        if options.revoke:
            return _revoke(broker, options)
        return _make(broker, options)


def _make(broker: Broker, options: argparse.Namespace) -> int:
    name = options.name or identity.as_name(options.topic.replace("/", "-"))
    body = {"name": name, "topic": options.topic, "signed": options.signed}
    answer = broker.ask("/admin/hook-token", body, authenticate=True)
    url = f"{broker.url}/hook/{quote(topics.example(options.topic))}"
    if options.json:
        output.tell(answer | {"url": url})
        return output.OK
    output.say(answer["token"])
    output.note(f"Publishes as hook:{answer['name']}. With the token in $TOKEN:")
    output.note(
        '  curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: text/plain" -d done '
        f"{shlex.quote(url)}"
    )
    if options.signed:
        output.note("Or give it, as its secret, to a sender that signs: see docs/webhooks.md.")
    return output.OK


def _list(broker: Broker, options: argparse.Namespace) -> int:
    answer = broker.ask("/admin/hook-tokens", {}, authenticate=True)
    if options.json:
        output.tell(answer)
        return output.OK
    for each in answer["hook_tokens"]:
        name = output.style(each["name"], "bold")
        signed = "  signed" if each.get("signed") else ""
        output.say(f"{name}  {each['topic']}  since {each['created_at']}{signed}")
    return output.OK


def _revoke(broker: Broker, options: argparse.Namespace) -> int:
    answer = broker.ask("/admin/revoke-hook-token", {"name": options.revoke}, authenticate=True)
    if options.json:
        output.tell(answer)
    else:
        output.say(f"The token {answer['name']} counts no more.")
    return output.OK
