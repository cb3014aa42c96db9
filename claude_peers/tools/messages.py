"""Tools about mail: sending it, reading it."""

from typing import Literal

from claude_peers.tools import outcome
from claude_peers.tools.member import Member
from claude_peers.tools.page import page
from claude_peers.tools.registry import Shown, tool

Intent = Literal["request", "inform", "ack"]
QOS = "1, the usual = kept until it is read; 0 = over once it was handed out, read or not."
"""What the argument means, of every tool that sends."""


@tool(
    always_load=True,
    aliases={"to": "to_id", "peer_id": "to_id", "name": "to_id", "text": "message"},
    to_id="The peer: its id or name from list_peers, name@host, or its directory.",
    message="What to say. Up to 256 KiB; put more into a file and send its path.",
    reply_to="The message_id you are answering, so that its sender knows.",
    intent=(
        '"request" = you expect an answer, and are told once if none comes; "inform" = none is '
        'needed; "ack" = it must not be answered.'
    ),
    qos=QOS,
)
async def send_message(
    member: Member,
    to_id: str,
    message: str,
    reply_to: int | None = None,
    intent: Intent | None = None,
    qos: int | None = None,
) -> str:
    """Send a message to another agent. It is stored before this returns, and kept until read.

    The answer says whether the peer is running and how the message reaches it. This is the tool
    for replying to messages from claude-peers, not the built-in SendMessage.
    """
    answer = await member.send(to_id, message, reply_to=reply_to, intent=intent, qos=qos)
    return outcome.sent(answer, to_id, intent=intent)


@tool(
    always_load=True,
    full="Repeat the whole text also of messages you have been given before.",
)
async def check_messages(member: Member, full: bool = False) -> str | Shown:  # noqa: FBT001, FBT002 - called by name
    """Read your unread messages from other agents, oldest first, a page at a time.

    Each message is shown once. Messages also arrive by themselves where the client allows it;
    this always works.
    """
    taken = await member.take()
    return page(member, taken, given=member.pushed, full=full)
