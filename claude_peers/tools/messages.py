"""Tools about mail: sending it, reading it."""

from typing import Any

from claude_peers.core.limits import PREVIEW
from claude_peers.core.text import plain
from claude_peers.tools import render
from claude_peers.tools.member import Member
from claude_peers.tools.registry import Shown, tool


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
    taken = await member.take()
    repeated = member.brief if full else {}
    views = [*({**repeated, **{view["id"]: view for view in taken}}).values()]
    if not views:
        return "No new messages."
    briefly = {view["id"] for view in views if _has_it(member, view) and not full}
    texts = [render.message(view, first_line=view["id"] in briefly) for view in views]
    count = render.fitting(texts)
    ids = tuple(view["id"] for view in views[:count])
    member.in_hand.update(ids)
    member.give_back(view["id"] for view in taken if view["id"] not in ids)
    if full:
        member.brief = {number: view for number, view in repeated.items() if number not in ids}
    member.keep_brief([view for view in views[:count] if view["id"] in briefly])
    rest = len((member.unread - member.in_hand).union(view["id"] for view in views[count:]))
    text = f"{count} new message(s):\n{render.LABEL}\n\n" + "\n\n---\n\n".join(texts[:count])
    if rest:
        text += f"\n\n---\n\n{rest} more: call check_messages again."
    return Shown(text, ids)


def _has_it(member: Member, view: dict[str, Any]) -> bool:
    """Whether the agent was given the whole text, not a preview of it."""
    return view["id"] in member.pushed and len(plain(str(view["text"]))) <= PREVIEW
