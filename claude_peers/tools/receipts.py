"""Tools about what became of messages: each step of one, and those that nobody read."""

from claude_peers.tools import outcome
from claude_peers.tools.member import Member
from claude_peers.tools.registry import tool
from claude_peers.wire import story

LETTERS = 50
"""Dead letters in one result."""


@tool(
    aliases={"id": "message_id"},
    message_id="The number that send_message told you, or that a message you got has.",
)
async def message_status(member: Member, message_id: int) -> str:
    """Tell what became of a message: when it was accepted, pushed, read, answered, or why not.

    Use it when a peer does not answer, before you send the same thing again. You can ask about
    messages you sent and messages you got.
    """
    return story.told(await member.call("/message-status", message_id=message_id))


@tool(limit=f"How many, newest first; {LETTERS} at most.")
async def get_dead_letters(member: Member, limit: int = 10) -> str:
    """Show messages to you that were never read: their time was over, or they were given up.

    Use it when a peer says it wrote and you have nothing from it. They are shown again each time.
    """
    most = max(1, min(limit, LETTERS))
    answer = await member.call("/dead-letters", **member.me, limit=most)
    return outcome.dead_letters(answer["dead_letters"])
