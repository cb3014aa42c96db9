"""Each request a peer may make, declared once; route, link and reference read it from here."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from claude_peers.core.models import Caller
from claude_peers.wire.codec import decode

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker

Serve = Callable[["Broker", Caller, Any], Awaitable["Any"]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that wants to know whether it was written whole.

    Attributes:
        body: the JSON.
        written: called once, with whether every byte was handed to the system.
    """

    body: Any
    written: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request.

    Attributes:
        path: its HTTP path, which is also its name on a live connection.
        request: the record its body is decoded into.
        serve: what it does.
        summary: one line for the reference.
        reshape: turns other implementations' bodies into ours before decoding.
    """

    path: str
    request: type[Any]
    serve: Serve
    summary: str
    reshape: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    async def __call__(self, broker: "Broker", caller: Caller, body: dict[str, Any]) -> Any:
        """Decode `body` and serve it; returns JSON or an `Answer`."""
        if self.reshape is not None:
            body = self.reshape(body)
        return await self.serve(broker, caller, decode(self.request, body))


def operation(
    path: str,
    request: type[Any],
    *,
    reshape: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Callable[[Serve], Operation]:
    """Declare the decorated function as the operation at `path`."""

    def declare(serve: Serve) -> Operation:
        summary = (serve.__doc__ or "").partition("\n")[0]
        return Operation(path, request, serve, summary, reshape)

    return declare
