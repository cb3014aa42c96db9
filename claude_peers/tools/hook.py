"""The tool that the client's hooks call; no agent sees it."""

from claude_peers.tools.member import Member
from claude_peers.tools.registry import Shown, tool


@tool(listed=False)
async def hook(
    member: Member,
    event: str = "",
    session_id: str = "",
    agent_id: str = "",
    tool_use_id: str = "",
    prompt: str = "",
) -> Shown:
    """Take an event of the client; answer with mail for the agent, or with {}."""
    text, ids = await member.hooks.told(
        event=event,
        session_id=session_id,
        agent_id=agent_id,
        tool_use_id=tool_use_id,
        prompt=prompt,
    )
    member.in_hand.update(ids)
    return Shown(text, ids, via="hook")
