"""Two sessions of the official SDK's client, of whatever version is installed, talk.

    sdk_conversation.py COMMAND [ARG ...]

Prints one JSON object: what each step returned. Runs under any Python with the `mcp` package,
which need not be the one the server runs under.
"""

import json
import os
import re
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def connect(stack: AsyncExitStack, command: list[str]) -> tuple[ClientSession, Any]:
    """Start a server and shake hands with it."""
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    reading, writing = await stack.enter_async_context(stdio_client(server))
    session = await stack.enter_async_context(ClientSession(reading, writing))
    return session, await session.initialize()


async def call(session: ClientSession, tool: str, **arguments: str) -> str:
    """Call a tool and return its text; an error is marked in front."""
    result = await session.call_tool(tool, arguments)
    text = "\n".join(getattr(block, "text", "") for block in result.content)
    # 1.x and 2.x spell the field differently.
    bad = getattr(result, "is_error", None) or getattr(result, "isError", None)
    return f"ERROR {text}" if bad else text


async def converse(command: list[str]) -> dict[str, Any]:
    """Let one session find the other and write to it."""
    async with AsyncExitStack() as stack:
        alice, greeting = await connect(stack, command)
        bob, _ = await connect(stack, command)
        version = getattr(greeting, "protocol_version", None) or greeting.protocolVersion
        steps: dict[str, Any] = {
            "protocol": str(version),
            "tools": sorted(tool.name for tool in (await alice.list_tools()).tools),
            "set_summary": await call(bob, "set_summary", summary="I am Bob"),
            "list_peers": await call(alice, "list_peers", scope="machine"),
        }
        found = re.search(r"ID: (\w{8})", steps["list_peers"])
        to_id = found[1] if found else "nobody"
        steps["send_message"] = await call(alice, "send_message", to_id=to_id, message="hello Bob")
        steps["check_messages"] = await call(bob, "check_messages")
        steps["check_again"] = await call(bob, "check_messages")
        steps["unknown_peer"] = await call(alice, "send_message", to_id="zzzzzzzz", message="x")
        return steps


async def main() -> None:
    with anyio.fail_after(60):
        print(json.dumps(await converse(sys.argv[1:])))


if __name__ == "__main__":
    anyio.run(main)
