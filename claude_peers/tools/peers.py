"""Tools about peers: who is there, who am I, what am I doing."""

from typing import Literal

from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import NAME, PATH, SUMMARY
from claude_peers.core.text import one_line, plain
from claude_peers.tools import render
from claude_peers.tools.member import Member
from claude_peers.tools.registry import tool

Scope = Literal["machine", "directory", "repo", "fleet", "device"]


@tool(
    always_load=True,
    also=("list_agents",),
    scope=(
        'Whom to list: "machine" = everybody on this computer, "directory" = the same working '
        'directory, "repo" = the same git repository, worktrees included, "fleet" and "device" = '
        "those that say they are in yours, or in the one you name."
    ),
    capabilities="Only those that say they can do all of these.",
    online_only="Only those that are told of a message at once.",
)
async def list_peers(  # noqa: PLR0913 - a tool's parameters are what it can be asked
    member: Member,
    scope: Scope = "machine",
    *,
    fleet_id: str = "",
    device_id: str = "",
    agent_type: str = "",
    capabilities: list[str] | None = None,
    online_only: bool = False,
) -> str:
    """List the other agents ("peers") you can talk to, with id, name, directory and summary.

    Works for agents of every vendor that runs claude-peers. Send to an id or a name from here.
    """
    wanted = {
        "fleet_id": fleet_id or _own(scope, "fleet", member.fleet_id),
        "device_id": device_id or _own(scope, "device", member.device_id),
        "agent_type": agent_type,
        "capabilities": capabilities,
        "online_only": online_only,
    }
    found = await member.call(
        "/list-peers",
        **{name: value for name, value in wanted.items() if value},
        scope=scope,
        cwd=member.cwd,
        git_root=member.git_root,
        repo=member.repo,
        exclude_id=member.client.peer_id,
    )
    if not found:
        return (
            f"No other peers found (scope: {scope}).\n"
            "Another agent session with claude-peers on this machine will show up here."
        )
    shown = render.page_of(render.peer(view) for view in found)
    listed = "\n\n".join(shown)
    text = f"Found {len(found)} peer(s) (scope: {scope}):\n\n{listed}"
    if len(shown) < len(found):
        text += f"\n\n{len(found) - len(shown)} more are not shown: use a narrower scope."
    return text


def _own(scope: str, kind: str, own: str) -> str:
    """Return the session's own fleet or device where that is meant."""
    if scope == kind and not own:
        raise BadRequestError(
            f"This session is in no {kind}",
            f"Give {kind}_id, or set CLAUDE_PEERS_{kind.upper()}_ID where the agent is started.",
        )
    return own if scope == kind else ""


@tool(
    always_load=True,
    summary="One or two sentences about your current work; every peer can read it.",
)
async def set_summary(member: Member, summary: str) -> str:
    """Tell the other agents what you are working on. Call it when you start and when it changes."""
    member.summarised = True
    await member.call("/set-summary", **member.me, summary=summary)
    text = f'Summary updated: "{plain(summary[:SUMMARY])}"'
    return text if len(summary) <= SUMMARY else f"{text}\nPeers see the first {SUMMARY} characters."


@tool()
async def whoami(member: Member) -> str:
    """Tell your own peer id and name, how messages reach you, and how many are unread."""
    await member.client.registered.wait()
    member.expire()
    return "\n".join(
        (
            f"ID: {one_line(member.client.peer_id, NAME)}",
            f"  Name: {one_line(member.client.name, NAME)}",
            f"  CWD: {one_line(member.cwd, PATH)}",
            f"  Push route: {member.route or 'none proven; messages wait for check_messages'}",
            f"  Unread messages: {len(member.unread)}",
        )
    )
