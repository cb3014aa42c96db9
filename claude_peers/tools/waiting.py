"""The tool that waits for a message, for agents that have nothing else to do until one comes.

It takes mail only when there is some that it waits for, and only that: what it does not want is
never handed out, because each time that happens without evidence counts against a message.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from claude_peers.core.errors import BadRequestError, PeerNotFoundError
from claude_peers.core.limits import NAME
from claude_peers.core.models import SYSTEM
from claude_peers.core.text import one_line
from claude_peers.tools.member import CALL, Member
from claude_peers.tools.page import page
from claude_peers.tools.registry import Progress, Shown, tool

LONGEST = 300.0
"""Seconds of one wait."""
EVERY = 5.0
"""Seconds between two signs of progress."""
_ID = re.compile(r"[a-z0-9]{8}")

Wants = Callable[[dict[str, Any]], bool]


@tool(
    timeout_s={
        "description": "Seconds to wait, 300 at most; keep it below your client's own limit.",
        "minimum": 0,
        "maximum": LONGEST,
    },
    from_id="Wait for a message of this peer only: its id, or its name from list_peers.",
    reply_to="Wait for the answer to the message of yours with this message_id.",
)
async def wait_for_message(
    member: Member,
    progress: Progress,
    timeout_s: float = 60,
    from_id: str | None = None,
    reply_to: int | None = None,
) -> str | Shown:
    """Wait for a message, then show it as check_messages does; unread mail is shown at once.

    Use it after send_message when you cannot go on without the answer: pass its message_id as
    reply_to. Go on with other work instead if there is any; messages are kept. A notice from
    claude-peers itself, such as that a peer has ended, ends the wait too. If nothing comes in
    time, the result says so; that is no error, and you may call it again.
    """
    wants = await _wanted(member, from_id, reply_to)
    given = frozenset(member.pushed)
    wait = _Wait.begin(min(max(timeout_s, 0.0), LONGEST), progress)
    while True:
        arriving = asyncio.ensure_future(member.arrival())
        try:
            if taken := await _take(member, wants):
                return page(member, taken, given=given)
            if not await wait.until(arriving, member):
                return _nothing(wait.total, from_id, reply_to)
        finally:
            arriving.cancel()


@dataclass(frozen=True, slots=True)
class _Wait:
    """One wait.

    Attributes:
        started: when, on the loop's clock.
        total: seconds it may take.
        progress: told how long it has taken.
    """

    started: float
    total: float
    progress: Progress

    @classmethod
    def begin(cls, total: float, progress: Progress) -> "_Wait":
        """Begin to wait."""
        return cls(asyncio.get_running_loop().time(), total, progress)

    async def until(self, arriving: "asyncio.Future[None]", member: Member) -> bool:
        """Return True when it is time to look for mail, False when the time is over."""
        clock = asyncio.get_running_loop().time
        while (left := self.started + self.total - clock()) > 0:
            await asyncio.wait((arriving,), timeout=min(EVERY, left))
            if arriving.done():
                return True
            await self.progress(clock() - self.started, self.total, "waiting for a message")
            # Nothing is pushed to an agent's second server; and what somebody else had in hand
            # and gave back does not arrive again.
            if member.client.secondary or member.unread - member.in_hand:
                return True
        return False


async def _wanted(member: Member, from_id: str | None, reply_to: int | None) -> Wants | None:
    """Return which messages are waited for, None for any.

    Raises:
        BadRequestError: the peer is not named.
        PeerNotFoundError: nobody has that name.
    """
    if from_id is None and reply_to is None:
        return None
    senders = None if from_id is None else await _ids(member, from_id.strip())

    def wants(view: dict[str, Any]) -> bool:
        if view.get("from_id") == SYSTEM and view.get("verified"):
            return True
        return (senders is None or view.get("from_id") in senders) and (
            reply_to is None or view.get("reply_to") == reply_to
        )

    return wants


async def _ids(member: Member, peer: str) -> set[str]:
    if not peer:
        raise BadRequestError("`from_id` is empty", "Leave it out to wait for anybody.")
    there = await member.call(
        "/list-peers",
        scope="machine",
        cwd=member.cwd,
        git_root=member.git_root,
        exclude_id=member.client.peer_id,
    )
    named = {str(view.get("id")) for view in there if view.get("name") == peer}
    if _ID.fullmatch(peer):  # who is away may come back
        return named | {peer}
    if not named:
        raise PeerNotFoundError(one_line(peer, NAME))
    return named


async def _take(member: Member, wants: Wants | None) -> list[dict[str, Any]]:
    """Take what is wanted of the unread mail; a sub-agent only looks at it."""
    if wants is None:
        return await member.take()
    unread = await _unread(member)
    found = {view["id"] for view in unread if wants(view)} - member.in_hand
    if not found:
        return []
    views = await member.take(but=({view["id"] for view in unread} | member.unread) - found)
    wanted = [view for view in views if wants(view)]
    if not CALL.get().sub_agent:  # what came between the look and the poll
        member.give_back(view["id"] for view in views if not wants(view))
    return wanted


async def _unread(member: Member) -> list[dict[str, Any]]:
    """Return the unread mail without any effect on it."""
    member.expire()
    if not member.client.secondary and member.unread <= member.items.keys():
        return [member.items[number][0] for number in sorted(member.unread)]
    found: list[dict[str, Any]] = (await member.call("/peek-messages", **member.me))["messages"]
    return found


def _nothing(total: float, from_id: str | None, reply_to: int | None) -> str:
    what = "No message" if reply_to is None else f"No answer to message {reply_to}"
    whose = "" if from_id is None else f" from {one_line(from_id, NAME)}"
    text = f"{what}{whose} within {total:g} s."
    if reply_to is not None:
        text += f" message_status({reply_to}) tells what became of it."
    return text
