"""What an MCP client may ask of us: the one table behind both faces."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from claude_peers.core.errors import ClaudePeersError
from claude_peers.session.handshake import BATCHING, initialize_result, negotiate
from claude_peers.session.progress import reporter
from claude_peers.session.rpc import (
    INVALID_PARAMS,
    Handler,
    Listener,
    MethodError,
    Reply,
    Result,
)
from claude_peers.tools.registry import Shown, Tool, arguments

Call = Callable[[Tool, dict[str, Any], dict[str, Any]], Awaitable[str | Shown]]
"""Runs a tool: the tool, its arguments, and the request's `_meta`."""
OnShown = Callable[[Shown, bool], None]
"""Is told of a result that shows messages whether the client got it whole; of a hook's answer
also, by False, that the client gave the call up after that."""

_ANNOTATIONS: Final = {"destructiveHint": False, "openWorldHint": False}
"""What no tool of ours does: destroy something, or reach anybody but the user's own agents. Codex
asks before each use of a tool that does not say so; `codex exec`, which cannot ask, refuses it.
"""
_PEERS: Final = (
    "Call list_peers of the claude-peers server and tell me in a few lines who is there and what "
    "each of them is working on."
)
_INBOX: Final = (
    "Call check_messages of the claude-peers server, tell me what came in, and answer what needs "
    "an answer and is within the task I gave you."
)
PROMPTS: Final = {
    "peers": ("Who else is working here, and on what", _PEERS),
    "inbox": ("Read and answer unread messages from peers", _INBOX),
}


class Methods:
    """The methods of one session.

    Args:
        tools: what may be called; those not listed are answered all the same.
        call: runs a tool.
        on_event: is told `initialized`, `prompts/list`, `tools/list` and `tools/call`, before the
            request is answered.
        on_shown: is told what became of each result that shows messages.

    Attributes:
        client: the client's `clientInfo`, empty before `initialize`.
        version: the protocol version in use, None before `initialize`.
        requests: method names to what answers them.
        notifications: method names to what listens to them.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        call: Call,
        *,
        on_event: Callable[[str], None] = lambda _event: None,
        on_shown: OnShown = lambda _shown, _whole: None,
    ) -> None:
        self.client: dict[str, Any] = {}
        self.version: str | None = None
        self._call = call
        self._on_event = on_event
        self._on_shown = on_shown
        self._tools = {name: each for each in tools for name in (each.name, *each.also)}
        self._listing = [_entry(each) for each in tools if each.listed]
        self.requests: dict[str, Handler] = {
            "initialize": self._initialize,
            "ping": _nothing,
            "logging/setLevel": _nothing,
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
            "prompts/list": self._list_prompts,
            "prompts/get": _get_prompt,
        }
        self.notifications: dict[str, Listener] = {"notifications/initialized": self._initialized}

    @property
    def batches(self) -> bool:
        """Whether the version in use has arrays of messages."""
        return self.version in BATCHING

    def greet(self, params: dict[str, Any]) -> None:
        """Take note of an `initialize` that has been answered elsewhere."""
        given = params.get("clientInfo")
        self.client = given if isinstance(given, dict) else {}
        self.version = negotiate(params.get("protocolVersion"))

    def _initialize(self, params: dict[str, Any]) -> Result:
        self.greet(params)
        return initialize_result(params)

    def _initialized(self, _params: dict[str, Any]) -> None:
        self._on_event("initialized")

    def _list_tools(self, _params: dict[str, Any]) -> Result:
        self._on_event("tools/list")
        return {"tools": self._listing}

    async def _call_tool(self, params: dict[str, Any]) -> Result:
        name, given, meta = params.get("name"), params.get("arguments"), params.get("_meta")
        if not isinstance(name, str):
            raise MethodError(INVALID_PARAMS, "`name` must be a string")
        if not isinstance(given, dict | None):
            raise MethodError(INVALID_PARAMS, "`arguments` must be an object")
        if (tool := self._tools.get(name)) is None:
            raise MethodError(INVALID_PARAMS, f"Unknown tool: {name}")
        self._on_event("tools/call")
        meta = meta if isinstance(meta, dict) else {}
        try:
            named = arguments(tool, given)
            if tool.reports:
                named["progress"] = reporter(meta)
            shown = await self._call(tool, named, meta)
        except ClaudePeersError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        if isinstance(shown, str):
            return _text_result(shown)
        # Who calls an unlisted tool is the client itself, whose timer may fire before it reads.
        return Reply(_text_result(shown.text), partial(self._on_shown, shown), late=not tool.listed)

    def _list_prompts(self, _params: dict[str, Any]) -> Result:
        self._on_event("prompts/list")
        return {
            "prompts": [
                {"name": name, "description": about} for name, (about, _) in PROMPTS.items()
            ]
        }


def _nothing(_params: dict[str, Any]) -> Result:
    return {}


def _get_prompt(params: dict[str, Any]) -> Result:
    name = params.get("name")
    if not isinstance(name, str):
        raise MethodError(INVALID_PARAMS, "`name` must be a string")
    if name not in PROMPTS:
        raise MethodError(INVALID_PARAMS, f"Unknown prompt: {name}")
    about, text = PROMPTS[name]
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return {"description": about, "messages": [message]}


def _entry(tool: Tool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "annotations": _ANNOTATIONS,
    }
    if tool.always_load:
        entry["_meta"] = {"anthropic/alwaysLoad": True}
    return entry


def _text_result(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}
