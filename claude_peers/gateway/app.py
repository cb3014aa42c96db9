"""The routes: every operation by its path, and the few things that are not operations."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from claude_peers import __version__
from claude_peers.broker.broker import Broker
from claude_peers.broker.operations import OPERATIONS
from claude_peers.broker.operations.registry import Answer, Operation
from claude_peers.core.errors import ClaudePeersError, FencedError
from claude_peers.gateway import errors, guard, hooks, upgrades
from claude_peers.gateway.caller import ConnectionCaller, RemoteCaller
from claude_peers.gateway.framing import Head
from claude_peers.wire import codec, proof, quirks

log = logging.getLogger(__name__)

JSON = "application/json;charset=utf-8"
TEXT = "text/plain;charset=utf-8"
Caller = ConnectionCaller | RemoteCaller
MCP_PATH = "/mcp"
"""Where MCP clients that speak HTTP come (`gateway.mcp`)."""
CARD_PATH = "/agent-card"
CARD_PATHS = (CARD_PATH, "/agent-cards", "/.well-known/agent.json", "/.well-known/agent-card.json")
"""Where agentmesh and A2A look for agent cards (`gateway.cards`)."""
_BY_PATH = {operation.path: operation for operation in OPERATIONS}
_HTTP_ERROR = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What goes back; `written` is told whether it went out whole."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    written: Callable[[bool], None] = field(default=lambda _whole: None)


class App:
    """Answers requests for one broker.

    Args:
        broker: whose requests these are.
        secret: this user's secret, by which the broker proves itself.
        status: what `/status` tells about the node.

    Attributes:
        closing: whether requests are turned away, to the next broker.
        mcp: answers requests to `/mcp`, which have shown a peer's token; without it there are none.
    """

    def __init__(
        self, broker: Broker, *, secret: bytes, status: Callable[[], dict[str, Any]]
    ) -> None:
        self.broker = broker
        self.secret = secret
        self.closing = False
        self.mcp: Callable[[Caller, Head, bytes], Awaitable[Response]] | None = None
        self._status = status
        self._get: dict[str, Callable[[Caller], tuple[str, bytes]]] = {
            "/": lambda _caller: (TEXT, b"claude-peers broker"),
            "/health": lambda _caller: (JSON, codec.dumps(self._health())),
            "/status": lambda caller: (JSON, codec.dumps(self._whole_status(caller))),
            "/openapi.json": lambda _caller: (JSON, _document()),
        }
        self._get |= {path: self._cards(path) for path in CARD_PATHS}
        self._methods: dict[str, tuple[str, ...]] = dict.fromkeys(_BY_PATH, ("POST",))
        self._methods |= dict.fromkeys(self._get, ("GET", "HEAD"))
        self._methods[MCP_PATH] = ("POST",)
        self._methods |= dict.fromkeys((upgrades.WS_PATH, upgrades.EVENTS_PATH), ("GET",))

    def admit(self, caller: Caller, head: Head) -> None:
        """Let a request's body be read.

        Raises:
            Refusal: it is not (see `gateway.guard`).
            MachineRefusedError: it comes from a machine that may not ask.
            FencedError: there is another broker to ask.
        """
        caller.present(head)
        hook, misplaced = hooks.is_hook(head), False
        if hook:
            known = hooks.admitted(self.broker, head, caller.token_hash) is not None
            misplaced = not known and self.broker.hooks.knows(caller.token_hash)
        else:
            known = self.broker.roster.by_token(caller.token_hash) is not None
        facts = caller.facts_for(token_known=known, token_matters=head.path != "/register")
        methods = self._methods.get(head.path, guard.METHODS)
        if upgrades.wants_websocket(head):
            methods = ("GET",)
        if hook:  # not even a WebSocket: a hook's token is no peer's, and makes none
            methods = ("POST",)
        signed = hooks.is_signed(self.broker, head, caller.token_hash)
        facts = replace(facts, methods=methods, any_type=hook, signed=signed, misplaced=misplaced)
        needs_token = (hook and not signed) or head.path == MCP_PATH
        guard.check(head, replace(facts, needs_token=needs_token))
        if head.path == "/register" and not known:
            caller.token_hash = None
        caller.unjudged = signed and not caller.machine
        self._check_open()

    async def answer(self, caller: Caller, head: Head, body: bytes) -> Response:
        """Serve an admitted request; never raises."""
        try:
            return await self._serve(caller, head, body)
        except Exception as error:  # noqa: BLE001 - the border: every error becomes an answer
            return self.refused(error, head.path)

    def refused(self, error: Exception, path: str) -> Response:
        """Return the answer that an error becomes."""
        status, told = self._verdict(error, path)
        return Response(status=status, body=codec.dumps(told), headers=errors.headers_for(error))

    async def call(
        self, caller: Caller, path: str, body: dict[str, Any]
    ) -> tuple[int, Any, Callable[[bool], None] | None]:
        """Serve a request of a live connection: status, JSON and whom to tell once written."""
        try:
            self._check_open()
            result = await _operation(path)(self.broker, caller, body)
        except Exception as error:  # noqa: BLE001 - the border: every error becomes an answer
            return *self._verdict(error, path), None
        if isinstance(result, Answer):
            return 200, result.body, result.written
        return 200, result, None

    def _check_open(self) -> None:
        if self.closing:
            raise FencedError

    async def _serve(self, caller: Caller, head: Head, body: bytes) -> Response:
        self._check_open()
        caller.received(body)
        if head.method != "POST":
            if head.path.startswith(CARD_PATH + "/"):
                content_type, told = self._cards(head.path)(caller)
            elif (content := self._get.get(head.path)) is not None:
                content_type, told = content(caller)
            else:
                raise _unknown_path(get=True)
            return Response(
                status=200, body=told, content_type=content_type, headers=self._proof(caller, head)
            )
        if head.path == MCP_PATH and self.mcp is not None:
            return await self.mcp(caller, head, body)
        if hooks.is_hook(head):
            told = await hooks.publish(self.broker, caller.token_hash, head, body)
            return Response(status=202, body=told)
        operation = _operation(head.path)
        result = await operation(self.broker, caller, codec.load_object(body))
        if isinstance(result, Answer):
            return Response(status=200, body=codec.dumps(result.body), written=result.written)
        return Response(status=200, body=codec.dumps(result))

    def _verdict(self, error: Exception, path: str) -> tuple[int, dict[str, Any]]:
        if (
            isinstance(error, ClaudePeersError)
            and error.business
            and path in errors.REFUSED_WITH_200
        ):
            return 200, quirks.refused(path, errors.business_refusal(error))
        status, told = errors.response_for(error)
        if status >= _HTTP_ERROR and not isinstance(error, ClaudePeersError):
            log.error("%s failed", path, exc_info=error)
        return status, told

    def _proof(self, caller: Caller, head: Head) -> tuple[tuple[str, str], ...]:
        nonce = head.headers.get(proof.NONCE_HEADER)
        if nonce is None:
            return ()
        return self.proofs(caller, nonce)

    def proofs(self, caller: Caller, nonce: str) -> tuple[tuple[str, str], ...]:
        """Return the headers by which the broker proves itself and asks for the same."""
        return (
            (proof.PROOF_HEADER, proof.broker_proof(caller.secret, nonce, self.broker.epoch)),
            (proof.CHALLENGE_HEADER, caller.challenge),
        )

    def _cards(self, path: str) -> Callable[[Caller], tuple[str, bytes]]:
        def told(caller: Caller) -> tuple[str, bytes]:
            from claude_peers.gateway import cards  # as the document is

            return JSON, codec.dumps(cards.page(self.broker, caller, path))

        return told

    def _whole_status(self, caller: Caller) -> dict[str, Any]:
        """Return what the node does as well; its processes are this machine's own business."""
        return self._health() | (self._status() if not caller.machine else {})

    def _health(self) -> dict[str, Any]:
        present, options = self.broker.roster.present(), self.broker.options
        return {
            "status": "ok",
            "peers": len(present),
            "version": f"claude-peers/{__version__}",
            "epoch": self.broker.epoch,
            "agents": len(present),
            "ws_connections": sum(map(self.broker.peers.online, present)),
            "fleet_id": options.fleet_id,
            "signing": bool(options.fleet_secret),
            "rate_limit_rpm": options.limits.per_minute or None,
        }


def _document() -> bytes:
    from claude_peers.gateway import openapi  # whoever does not ask for it does not pay for it

    return openapi.document()


def _operation(path: str) -> Operation:
    operation = _BY_PATH.get(path)
    if operation is None:
        raise _unknown_path()
    return operation


def _unknown_path(*, get: bool = False) -> errors.Refusal:
    if get:
        remedy = (
            "GET serves /, /health, /status, /openapi.json, /agent-cards, /events and /ws; all "
            "else is a POST."
        )
    else:
        remedy = f"The requests are {', '.join(sorted(_BY_PATH))}."
    return errors.Refusal(404, "not_found", fact="not found", remedy=remedy)
