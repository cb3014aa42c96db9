"""A page of messages as the agent reads it, and what is kept in mind of those that are on it."""

from collections.abc import Collection
from typing import Any

from claude_peers.tools import render
from claude_peers.tools.member import CALL, Member
from claude_peers.tools.registry import Shown
from claude_peers.wire.envelope import is_whole


def page(
    member: Member,
    taken: list[dict[str, Any]],
    *,
    given: Collection[int],
    full: bool = False,
) -> str | Shown:
    """Return what was taken as far as it fits; the rest is given back.

    Args:
        member: whose mail it is.
        taken: messages handed out by the broker, oldest first.
        given: ids of messages the agent has been given over a route before; of those that were
            whole the first line is enough.
        full: show all of them whole, and repeat those that were listed by their first line.
    """
    repeated = member.brief if full else {}
    views = [*({**repeated, **{view["id"]: view for view in taken}}).values()]
    if not views:
        return "No new messages."
    if CALL.get().sub_agent:  # it may look, the mail stays the main agent's
        texts = [render.message(view) for view in views]
        return f"{render.LABEL}\n\n" + "\n\n---\n\n".join(texts[: render.fitting(texts)])
    briefly = {view["id"] for view in views if not full and view["id"] in given and is_whole(view)}
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
