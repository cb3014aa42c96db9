"""Each request a peer may make, declared once; route, link and reference read it from here."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from claude_peers.core.errors import SecretRequiredError
from claude_peers.core.models import Caller
from claude_peers.wire.codec import decode
from claude_peers.wire.quirks import renamed

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker

Serve = Callable[["Broker", Caller, Any], Awaitable["Any"]]
Body = TypeVar("Body")
_NO_OTHERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer(Generic[Body]):
    """A response that wants to know whether it was written whole.

    Attributes:
        body: the JSON.
        written: called once, with whether every byte was handed to the system.
    """

    body: Body
    written: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request.

    Attributes:
        path: its HTTP path, which is also its name on a live connection.
        request: the record its body is decoded into.
        serve: what it does; its return annotation says what it answers (`wire.answers`).
        summary: one line for the reference.
        user: whether the caller has to prove the user's secret.
        also: what other implementations call fields, and what we do (`wire.quirks`).
    """

    path: str
    request: type[Any]
    serve: Serve
    summary: str
    user: bool
    also: Mapping[str, str]

    async def __call__(self, broker: "Broker", caller: Caller, body: dict[str, Any]) -> Any:
        """Decode `body` and serve it; returns JSON or an `Answer`.

        Raises:
            SecretRequiredError: it is the user's only, and the caller has not proved to be that.
        """
        request = decode(self.request, renamed(body, self.also))
        if self.user and not caller.knows_secret:
            raise SecretRequiredError
        return await self.serve(broker, caller, request)


def operation(
    path: str,
    request: type[Any],
    *,
    user: bool = False,
    also: Mapping[str, str] = _NO_OTHERS,
) -> Callable[[Serve], Operation]:
    """Declare the decorated function as the operation at `path`."""

    def declare(serve: Serve) -> Operation:
        summary = (serve.__doc__ or "").partition("\n")[0]
        return Operation(path, request, serve, summary, user, also)

    return declare
