"""Tools about mail: sending it, reading it."""

from typing import Any

from claude_peers.core.limits import PAGE
from claude_peers.tools import render
from claude_peers.tools.member import Member
from claude_peers.tools.registry import Shown, tool

PAGE_SIZE = 38_000
"""Characters of one result: clients put longer ones into a file."""


@tool(
    always_load=True,
    aliases={"to": "to_id", "peer_id": "to_id", "name": "to_id", "text": "message"},
    to_id="The peer: its id or name from list_peers, name@host, or its directory.",
    message="What to say. Up to 256 KiB; put more into a file and send its path.",
    reply_to="The message_id you are answering, so that its sender knows.",
)
async def send_message(
    member: Member, to_id: str, message: str, reply_to: int | None = None
) -> str:
    """Send a message to another agent. It is stored before this returns, and kept until read.

    The answer says whether the peer is running and how the message reaches it. This is the tool
    for replying to messages from claude-peers, not the built-in SendMessage.
    """
    answer = await member.send(to_id, message, reply_to=reply_to)
    return render.sent(answer, to_id)


@tool(
    always_load=True,
    full="Repeat the whole text also of messages you have been given before.",
)
async def check_messages(member: Member, full: bool = False) -> str | Shown:  # noqa: FBT001, FBT002 - called by name
    """Read your unread messages from other agents, oldest first, a page at a time.

    Each message is shown once. Messages also arrive by themselves where the client allows it;
    this always works.
    """
    answer = await member.call(
        "/poll-messages",
        **member.me,
        ack_supported=True,
        limit=PAGE,
        exclude=sorted(member.in_hand),
    )
    views = answer["messages"]
    if not views:
        return "No new messages."
    texts = [
        render.message(view, first_line=view["id"] in member.pushed and not full) for view in views
    ]
    count = _fitting(texts)
    ids = tuple(view["id"] for view in views[:count])
    member.in_hand.update(ids)
    await _release(member, views[count:])
    member.unread.update(view["id"] for view in views[count:])
    rest = len(member.unread.difference(ids, member.in_hand))
    text = f"{count} new message(s):\n{render.LABEL}\n\n" + "\n\n---\n\n".join(texts[:count])
    if rest:
        text += f"\n\n---\n\n{rest} more: call check_messages again."
    return Shown(text, ids)


def _fitting(texts: list[str]) -> int:
    """Return how many of the texts make a page; the first is on it whatever its length."""
    size, count = 0, 0
    for text in texts:
        size += len(text) + 10
        if count and size > PAGE_SIZE:
            break
        count += 1
    return count


async def _release(member: Member, views: list[dict[str, Any]]) -> None:
    if views:
        ids = [view["id"] for view in views]
        await member.call("/release-messages", **member.me, message_ids=ids)
