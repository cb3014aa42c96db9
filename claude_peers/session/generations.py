"""What differs between the two generations of the MCP SDK.

The SDK's modules are loaded by name, on first use: they cost half a second and 40 MiB, and the
two generations have no common types.
"""

import gc
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final, Protocol

from claude_peers.core.errors import SettingsError
from claude_peers.session.handshake import (
    CAPABILITIES,
    INSTRUCTIONS,
    PROTOCOL_VERSIONS,
    SERVER_INFO,
)
from claude_peers.session.late import Key
from claude_peers.session.methods import Methods
from claude_peers.session.rpc import Handler

Answer = Callable[[Handler, Mapping[str, Any], Key], Awaitable[dict[str, Any]]]
"""Runs a method with its params, for the request of that id; raises `ProtocolError`."""


class ProtocolError(Exception):
    """A JSON-RPC error on its way into the SDK's own exception."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class Sdk(Protocol):
    """One generation of the SDK.

    Attributes:
        modern: the versions without a handshake that it speaks over HTTP.
    """

    modern: tuple[str, ...]

    def parse(self, line: bytes) -> Any:
        """Return a line as the SDK's message; raises ValueError if it is none."""
        ...

    def unparse(self, message: Any) -> dict[str, Any]:
        """Return one of the SDK's messages as JSON."""
        ...

    async def serve(self, methods: Methods, answer: Answer, source: Any, sink: Any) -> None:
        """Answer requests until the source ends."""
        ...

    def server(self, methods: Methods, answer: Answer, *, instructions: str) -> Any:
        """Return a server for clients that come by HTTP."""
        ...


def load() -> Sdk:
    """Import the SDK, without collecting garbage meanwhile, which takes a quarter off.

    Raises:
        SettingsError: it is not installed.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        import_module("mcp.types")
        return (
            _Second() if hasattr(import_module("mcp.server.lowlevel").Server, _MARK) else _First()
        )
    except ModuleNotFoundError as error:
        raise SettingsError(
            "CLAUDE_PEERS_MCP", "sdk", "Install the `mcp` package beside claude-peers, or unset it."
        ) from error
    finally:
        if collecting:
            gc.enable()


_MARK: Final = "add_request_handler"
"""What only the second generation's server has."""


_COMPLETE: Final[dict[str, Any]] = {"resultType": "complete"}
_LIST: Final = {**_COMPLETE, "ttlMs": 0, "cacheScope": "private"}
_MODERN: Final = {"tools/list": _LIST, "prompts/list": _LIST}
"""What the protocol without handshake, which only HTTP clients may speak, wants in results."""


class _Second:
    """SDK 2: handlers give plain objects; its runner holds the handshake."""

    def __init__(self) -> None:
        self.modern: tuple[str, ...] = import_module("mcp_types.version").MODERN_PROTOCOL_VERSIONS
        self._types = import_module("mcp.types")
        self._runner = import_module("mcp.server.runner")
        self._session_message = import_module("mcp.shared.message").SessionMessage
        self._error = import_module("mcp.shared.exceptions").MCPError

    def parse(self, line: bytes) -> Any:
        message = self._types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        return self._session_message(message)

    def unparse(self, message: Any) -> dict[str, Any]:
        given: dict[str, Any] = message.message.model_dump(
            by_alias=True, mode="json", exclude_unset=True
        )
        return given

    async def serve(self, methods: Methods, answer: Answer, source: Any, sink: Any) -> None:
        server = self.server(methods, answer, instructions=INSTRUCTIONS)
        async with server.lifespan(server) as state:
            await self._runner.serve_loop(
                server, source, sink, lifespan_state=state, init_options=_options(self._types)
            )

    def server(self, methods: Methods, answer: Answer, *, instructions: str) -> Any:
        server = import_module("mcp.server.lowlevel").Server(
            **SERVER_INFO, instructions=instructions
        )

        async def request(handler: Handler, context: Any, _params: Any) -> Any:
            try:
                result = await answer(handler, context.params or {}, context.request_id)
                if context.protocol_version in PROTOCOL_VERSIONS:
                    return result
                return _MODERN.get(context.method, _COMPLETE) | result
            except ProtocolError as error:
                raise self._error(error.error["code"], error.error["message"]) from error

        async def initialized(_context: Any, _params: Any) -> None:
            methods.notifications["notifications/initialized"]({})

        for name, handler in methods.requests.items():
            if name != "initialize":
                server.add_request_handler(
                    name, self._types.RequestParams, partial(request, handler)
                )
        server.add_notification_handler(
            "notifications/initialized", self._types.NotificationParams, initialized
        )
        return server


class _First:  # pragma: no cover - runs only where mcp 1 is installed
    """SDK 1: handlers take and give models; it answers cancelled requests, which we drop."""

    METHODS: Final = {
        "ping": ("PingRequest", "EmptyResult"),
        "logging/setLevel": ("SetLevelRequest", "EmptyResult"),
        "tools/list": ("ListToolsRequest", "ListToolsResult"),
        "tools/call": ("CallToolRequest", "CallToolResult"),
        "prompts/list": ("ListPromptsRequest", "ListPromptsResult"),
        "prompts/get": ("GetPromptRequest", "GetPromptResult"),
    }

    def __init__(self) -> None:
        self.modern: tuple[str, ...] = ()
        self._types = import_module("mcp.types")
        self._session_message = import_module("mcp.shared.message").SessionMessage
        self._error = import_module("mcp.shared.exceptions").McpError

    def parse(self, line: bytes) -> Any:
        return self._session_message(self._types.JSONRPCMessage.model_validate_json(line))

    def unparse(self, message: Any) -> dict[str, Any]:
        given: dict[str, Any] = message.message.model_dump(
            by_alias=True, mode="json", exclude_none=True
        )
        return given

    async def serve(self, methods: Methods, answer: Answer, source: Any, sink: Any) -> None:
        server = self.server(methods, answer, instructions=INSTRUCTIONS)
        await server.run(source, sink, _options(self._types))

    def server(self, methods: Methods, answer: Answer, *, instructions: str) -> Any:
        types = self._types
        server = import_module("mcp.server.lowlevel").Server(
            SERVER_INFO["name"], SERVER_INFO["version"], instructions
        )

        async def request(handler: Handler, model: Any, given: Any) -> Any:
            params = given.params.model_dump(by_alias=True, mode="json") if given.params else {}
            try:
                result = await answer(handler, params, server.request_context.request_id)
            except ProtocolError as error:
                raise self._error(types.ErrorData(**error.error)) from error
            return types.ServerResult(model.model_validate(result))

        async def initialized(_notification: Any) -> None:
            methods.notifications["notifications/initialized"]({})

        for name, (wanted, given) in self.METHODS.items():
            handler = partial(request, methods.requests[name], getattr(types, given))
            server.request_handlers[getattr(types, wanted)] = handler
        server.notification_handlers[types.InitializedNotification] = initialized
        return server


def _options(types: Any) -> Any:
    return import_module("mcp.server.models").InitializationOptions(
        server_name=SERVER_INFO["name"],
        server_version=SERVER_INFO["version"],
        title=SERVER_INFO["title"],
        capabilities=types.ServerCapabilities.model_validate(CAPABILITIES),
        instructions=INSTRUCTIONS,
    )
