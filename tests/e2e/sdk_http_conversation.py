"""Two clients of the official SDK, of whatever version is installed, talk through `/mcp`.

    sdk_http_conversation.py ALICE BOB

ALICE and BOB are what `claude-peers token` printed. Prints "change" once half is done, goes on
when a line comes in, and ends with one JSON object: what each step returned. Runs under any
Python with the `mcp` package, which need not be the one the broker runs under.
"""

import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import mcp.client.streamable_http as transport
from anyio import to_thread
from mcp import ClientSession
from sdk_conversation import call

TEXTS = 3
"""Messages before the change, and as many after it."""


async def connect(stack: AsyncExitStack, configuration: str) -> tuple[ClientSession, Any]:
    """Open a session as a configuration says."""
    given = json.loads(configuration)
    client = transport.create_mcp_http_client(headers=given["headers"])
    await stack.enter_async_context(client)
    connecting = transport.streamable_http_client(given["url"], http_client=client)
    streams = await stack.enter_async_context(connecting)  # 1.x gives a third thing
    session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
    return session, await session.initialize()


async def send(session: ClientSession, when: str) -> list[str]:
    return [
        await call(session, "send_message", to_id="bob", message=f"{when} {number}.")
        for number in range(TEXTS)
    ]


async def converse(alice_given: str, bob_given: str) -> dict[str, Any]:
    """Let one write to the other, before and after something changes behind them."""
    async with AsyncExitStack() as stack:
        alice, greeting = await connect(stack, alice_given)
        bob, _ = await connect(stack, bob_given)
        version = getattr(greeting, "protocol_version", None) or greeting.protocolVersion
        steps: dict[str, Any] = {
            "protocol": str(version),
            "tools": sorted(tool.name for tool in (await alice.list_tools()).tools),
            "set_summary": await call(bob, "set_summary", summary="I am Bob"),
            "list_peers": await call(alice, "list_peers", scope="machine"),
            "before": await send(alice, "before"),
        }
        await alice.send_ping()
        print("change", flush=True)
        await to_thread.run_sync(sys.stdin.readline)
        steps["after"] = await send(alice, "after")
        steps["wait_for_message"] = await call(bob, "wait_for_message", timeout_s=30)
        steps["check_again"] = await call(bob, "check_messages")
        steps["unknown_peer"] = await call(alice, "send_message", to_id="zzzzzzzz", message="x")
        return steps


async def main() -> None:
    with anyio.fail_after(60):
        print(json.dumps(await converse(*sys.argv[1:])))


if __name__ == "__main__":
    anyio.run(main)
